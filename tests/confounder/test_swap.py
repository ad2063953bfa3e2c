"""Shape swaps: donors, arms, ground truth against the exact intervention, and volumes of 48 voxels a side."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from cfx.confounder.intervention import NEEDED, measure
from cfx.confounder.plan import Plan
from cfx.confounder.planted import simulated
from cfx.confounder.reliance import Outcome, decide
from cfx.confounder.swap import ShapeSwap
from cfx.core.distance import plausible_volumes, signed_distance
from cfx.core.errors import InputError
from cfx.core.scores import dice
from cfx.data import BrainConfig, load_cohort
from cfx.data.brain import Confounder

SHAPE = (Confounder(kind="shape", q=0.9),)


def brains(n: int, start: int = 0, **more) -> BrainConfig:
    return BrainConfig(n=n, seed=3, start=start, size=32, confounders=SHAPE, **more)


@pytest.fixture(scope="module")
def swap() -> ShapeSwap:
    return ShapeSwap.of(load_cohort(brains(24)), load_cohort(brains(80, 1000)), doses=(0.5,))


class Reads(nn.Module):
    """Logit of class 1: how the brightness is spread over the image, by a fixed template, plus a signal within it."""

    def __init__(self, weight: Tensor, gain: float) -> None:
        super().__init__()
        self.weight, self.gain = weight, gain

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * ((x > -0.95).float() * self.weight).flatten(1).sum(1, keepdim=True)


def outline_readers(cohort, spread: float = 0.1, k: int = 8) -> list[nn.Module]:
    """Networks that read the class from the support: the difference of the classes' mean masks."""
    mask = (cohort.x > -0.95).float()
    weight = mask[cohort.y == 1].mean(0) - mask[cohort.y == 0].mean(0)
    middle = 0.05
    return [Reads(weight, middle * (1 + spread * i)) for i in range(k)]


def test_donors_are_of_the_right_class_and_used_once(swap: ShapeSwap) -> None:
    donors = load_cohort(brains(80, 1000))
    assert torch.equal(donors.y[swap.other], 1 - swap.y)
    assert torch.equal(donors.y[swap.own], swap.y)
    assert len(swap.other.unique()) == len(swap.own.unique()) == 24


def test_an_image_is_never_its_own_donor() -> None:
    cohort = load_cohort(brains(24))
    swap = ShapeSwap.of(cohort, cohort)
    assert not bool((swap.own == torch.arange(24)).any())
    twins = torch.arange(24) // 2  # two images a subject, whatever they are called
    named = replace(cohort, y=twins % 2, covariates={"subject": twins.double()})
    swap = ShapeSwap.of(named, named)
    assert not bool((twins[swap.own] == twins).any())


def test_both_arms_change_the_image_by_as_much(swap: ShapeSwap) -> None:
    other, own = (1 - dice(swap.mask, swap.shapes[d]) for d in swap.donors)
    order = torch.cat([(swap.y == k).nonzero()[:, 0].roll(1) for k in (0, 1)])[swap.y.argsort(stable=True).argsort()]
    shuffled = 1 - dice(swap.mask, swap.shapes[swap.own[order]])  # the same donors, not assigned by size
    assert float((other - own).abs().mean()) < 0.6 * float((other - shuffled).abs().mean())


def test_a_row_whose_donor_is_no_usual_brain_is_not_trusted(swap: ShapeSwap) -> None:
    """One donor in eighty is half of a brain, as a failed skull strip leaves it; its change is otherwise sound."""
    cohort, donors = load_cohort(brains(24)), load_cohort(brains(80, 1000))
    mask, bad = donors.mask.clone(), int(swap.other[3])
    mask[bad, ..., :16] = False
    cut = ShapeSwap.of(cohort, replace(donors, mask=mask))
    assert cut.transfer.volumes == plausible_volumes(cut.shapes)
    assert int(cut.other[3]) == bad
    rows = torch.tensor([2, 3, 4])
    assert swap.show(rows).ok.all()
    shown = cut.transfer(cut.x[rows], cut.mask[rows], cut.shapes[cut.other[rows]])
    assert shown.plausible.tolist() == [True, False, True]
    assert not cut.show(rows).ok[1]


def test_arms_have_the_shapes_they_should(swap: ShapeSwap) -> None:
    shown = swap.show(torch.arange(6))
    assert {*NEEDED, "random", "normalised", "dose_0.5"} == shown.arms.keys()
    assert torch.equal(shown.arms["untouched"], swap.x[:6])
    away = signed_distance(swap.shapes[swap.other[:6]]) > 3  # beyond the edge, where a brain fades out
    assert bool((shown.arms["opposite"][away & swap.mask[:6]] == -1).all())
    assert bool((shown.quality["dice_opposite"] > 0.95).all())
    assert float((shown.arms["identity"] - swap.x[:6]).abs().max()) < 1e-5
    assert float((shown.arms["round_trip"] - swap.x[:6]).abs().mean()) < 0.05


def test_rows_do_not_depend_on_their_batch(swap: ShapeSwap) -> None:
    one, two = swap.show(torch.tensor([3])), swap.show(torch.tensor([1, 3]))
    for name, x in one.arms.items():
        assert torch.allclose(x[0], two.arms[name][1], atol=1e-5), name


def test_a_reader_of_the_outline_relies_on_shape_as_the_exact_intervention_says() -> None:
    cohort, donors = load_cohort(brains(48)), load_cohort(brains(160, 1000))
    networks = outline_readers(donors)
    plan = Plan(confounder="shape", doses=())
    swapped = decide(measure(networks, ShapeSwap.of(cohort, donors)), plan)
    exact = decide(measure(networks, simulated(brains(48), "shape")[0]), plan)
    assert swapped.verdict is Outcome.RELIES
    assert exact.verdict is Outcome.RELIES
    assert swapped.effect.value > 0
    assert abs(swapped.arms["round_trip"].value) < 0.1 * swapped.effect.value


def test_what_comes_after_sees_every_arm(swap: ShapeSwap) -> None:
    seen = []

    def then(x: Tensor, mask: Tensor) -> Tensor:
        seen.append(mask.flatten(1).sum(1))
        return torch.zeros_like(x)

    arms = replace(swap, then=then).show(torch.arange(2)).arms
    assert len(seen) == len(arms)
    assert all(bool((x == 0).all()) for x in arms.values())


def test_volumes() -> None:
    volumes = BrainConfig(n=12, seed=3, size=48, dims=3, confounders=SHAPE)
    brains = load_cohort(volumes)
    rows = torch.cat([(brains.y == k).nonzero()[:5, 0] for k in (0, 1)])
    tests, donors = rows[[0, 1, 5, 6]], rows[[2, 3, 4, 7, 8, 9]]
    networks = outline_readers(brains[donors], k=6)
    scores = measure(networks, ShapeSwap.of(brains[tests], brains[donors]))
    assert bool((scores.quality["dice_opposite"] > 0.95).all())
    found = decide(scores, Plan(confounder="shape", seeds=6, doses=()))
    assert found.effect.value > 0
    assert abs(found.arms["identity"].value) < 1e-3


def test_bad_input_is_named() -> None:
    cohort = load_cohort(brains(24))
    with pytest.raises(InputError, match="donors: expected masks and labels, got no masks"):
        ShapeSwap.of(cohort, replace(cohort, mask=None))
    with pytest.raises(InputError, match=r"cohort\.y: expected both classes"):
        ShapeSwap.of(cohort[cohort.y == 0], cohort)
    with pytest.raises(InputError, match="donors: expected masks of shape"):
        ShapeSwap.of(cohort, load_cohort(brains(8, 1000).model_copy(update={"size": 48})))
