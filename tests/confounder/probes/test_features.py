"""Rungs of the ladder on bodies whose moments are known."""

import math

import pytest
import torch
from torch import Tensor

from cfx.confounder.probes.features import RUNGS, Features, features, shares, view
from cfx.core.distance import signed_distance
from cfx.core.errors import InputError
from cfx.core.geometry import identity


def box(space: tuple[int, ...], low: tuple[int, ...], sides: tuple[int, ...]) -> Tensor:
    mask = torch.zeros(1, 1, *space, dtype=torch.bool)
    mask[(0, 0, *[slice(a, a + n) for a, n in zip(low, sides, strict=True)])] = True
    return mask


def ellipsoid(space: tuple[int, ...], centre: tuple[float, ...], map_: Tensor) -> Tensor:
    """Points p with |A^-1 (p - c)| <= 1."""
    p = identity(space, torch.zeros(1, dtype=torch.float64)) - torch.tensor(centre).view(1, -1, *[1] * len(space))
    q = torch.einsum("ij,bj...->bi...", torch.linalg.inv(map_.double()), p)
    return q.square().sum(1, keepdim=True) <= 1


@pytest.mark.parametrize(("low", "sides"), [((3, 5), (8, 4)), ((2, 3, 4), (6, 8, 5))])
def test_moments_of_a_box_are_the_closed_form(low: tuple[int, ...], sides: tuple[int, ...]) -> None:
    d = len(low)
    found = features(box((16,) * d, low, sides), "moments").values[0]
    middle = [a + (n - 1) / 2 for a, n in zip(low, sides, strict=True)]
    second = torch.diag(torch.tensor([(n * n - 1) / 12 for n in sides]))[torch.ones(d, d).tril().bool()]
    known = [math.prod(sides), *[n - 1 for n in sides], *middle, *middle]
    assert found[: 1 + 3 * d].tolist() == pytest.approx(known)
    assert found[1 + 3 * d :].tolist() == pytest.approx(second.tolist(), abs=2e-3)


@pytest.mark.parametrize("rung", list(RUNGS))
@pytest.mark.parametrize("d", [2, 3])
def test_a_rung_reads_each_mask_by_itself(rung: str, d: int) -> None:
    masks = torch.cat([box((20,) * d, (3,) * d, (9,) * d), box((20,) * d, (6,) * d, tuple(range(7, 7 + d)))])
    both = features(masks, rung).values
    assert torch.allclose(both[1:], features(masks[1:], rung).values)
    assert not torch.allclose(both[0], both[1])


@pytest.mark.parametrize("d", [2, 3])
def test_occupancy_forgets_affine_maps_and_keeps_the_rest(d: int) -> None:
    space, middle = (48,) * d, (23.5,) * d
    ball = ellipsoid(space, middle, 12 * torch.eye(d))
    stretch = torch.diag(torch.tensor([17.0, 11.0, 14.0])[:d])
    stretch[0, 1] = 5.0
    moved = ellipsoid(space, tuple(c - 2 + k for k, c in enumerate(middle)), stretch)
    cube = box(space, (14,) * d, (20,) * d)
    of = {name: features(m, "occupancy").values for name, m in {"ball": ball, "moved": moved, "cube": cube}.items()}
    same, other = ((of["ball"] - of[name]).square().mean().sqrt() for name in ("moved", "cube"))
    assert same < 0.3 * other
    # a ball of unit second moments fills its radius: the share of the grid is that of the ball in its cube
    unit = math.pi ** (d / 2) / math.gamma(d / 2 + 1) / 2.5**d
    assert float(of["ball"].mean()) == pytest.approx(unit, rel=0.02)


def test_sdf_is_the_mean_distance_of_each_cell() -> None:
    mask = box((32, 64), (4, 20), (20, 30))
    found = features(mask, "sdf").values.view(8, 16)
    assert torch.allclose(found, signed_distance(mask)[0, 0].view(8, 4, 16, 4).mean((1, 3)), atol=1e-5)


def test_shares_keep_the_volume() -> None:
    mask = box((32, 64, 48), (4, 20, 7), (20, 30, 11))
    found = shares(mask, 16)
    assert found.shape == (1, 1, 8, 16, 12)
    assert float(found.sum()) * 64 == pytest.approx(int(mask.sum()))


def test_any_view_is_its_numbers() -> None:
    x = torch.arange(24.0).view(2, 3, 4)
    assert torch.equal(view(x).values, x.view(2, 12))
    assert torch.equal(view(x > 5, "mask").values, (x > 5).float().view(2, 12))


def test_bad_input_is_named() -> None:
    mask = box((8, 8), (2, 2), (3, 3))
    with pytest.raises(InputError, match="rung: expected one of"):
        features(mask, "cnn")
    with pytest.raises(InputError, match="mask: expected an inside"):
        features(torch.zeros_like(mask), "volume")
    with pytest.raises(InputError, match="age: expected finite"):
        Features("age", torch.tensor([[float("nan")]]))
    with pytest.raises(InputError, match="view: expected at least one column"):
        view(torch.zeros(3, 0))
