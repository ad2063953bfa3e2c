"""Principal components of signed distances: closed forms, and what is refused."""

import pytest
import torch

from cfx.confounder.shape.pca import DEPTH, SdfPca, as_distance, clipped, mirrored
from cfx.core.distance import signed_distance
from cfx.core.errors import InputError
from tests.confounder.shape.toys import ellipsoids


@pytest.mark.parametrize("dims", [2, 3])
class TestPca:
    def test_modes_are_those_of_the_singular_value_decomposition(self, dims):
        d = signed_distance(ellipsoids(15, dims))
        pca = SdfPca.fit(d, 3)
        x = (d / pca.clip).clamp(-1, 1).flatten(1).double()
        _, s, v = torch.linalg.svd(x - x.mean(0), full_matrices=False)
        assert torch.allclose(pca.scale.double(), s[:3] / 15**0.5, rtol=1e-4)
        overlap = (pca.basis.flatten(1).double() @ v[:3].T).abs()
        assert torch.allclose(overlap, torch.eye(3, dtype=torch.float64), atol=1e-3)

    def test_codes_of_the_fitted_shapes_are_white(self, dims):
        d = signed_distance(ellipsoids(15, dims))
        z = SdfPca.fit(d, 3).encode(d).double()
        assert torch.allclose(z.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-4)
        assert torch.allclose(z.T @ z / 15, torch.eye(3, dtype=torch.float64), atol=1e-3)

    def test_all_modes_give_the_shapes_back(self, dims):
        mask = ellipsoids(10, dims)
        pca = SdfPca.whole(mask)
        d = pca.decode(pca.encode(mask))
        assert torch.allclose(d, signed_distance(mask).clamp(-pca.clip, pca.clip), atol=1e-3)
        assert torch.equal(d <= 0, mask)

    def test_decode_then_encode_is_the_identity_between_the_clips(self, dims):
        pca = SdfPca.fit(ellipsoids(15, dims), 2)
        z = torch.tensor([[0.2, 0.1], [-0.1, 0.0]])
        free = (z * pca.scale) @ pca.basis.flatten(1)
        raw = pca.clip * (pca.mean + free.view(2, *pca.mean.shape))
        inside = raw.clamp(-pca.clip, pca.clip) == raw
        assert inside.double().mean() > 0.3
        assert torch.equal(pca.decode(z)[inside], raw[inside])

    def test_mirrored_shapes_make_a_mirror_symmetric_mean(self, dims):
        mask = ellipsoids(10, dims).roll(2, dims=2)
        mean = SdfPca.fit(mask, 3, mirror=0).mean
        assert torch.allclose(mean, mean.flip(1), atol=1e-6)
        assert not torch.allclose(SdfPca.fit(mask, 3).mean, mean, atol=1e-2)


def test_distances_are_clipped_at_a_quarter_of_the_mean_depth():
    d = signed_distance(ellipsoids(8))
    assert SdfPca.fit(d, 2).clip == pytest.approx(DEPTH * float(-d.amin((1, 2, 3)).mean()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: SdfPca.fit(m, 0), r"k: expected 1 .. \d modes, as many as these shapes span, got 0"),
        (lambda m: SdfPca.fit(m, 8), r"k: expected 1 .. \d modes"),
        (lambda m: SdfPca.fit(m, 2, mirror=2), r"mirror: expected a spatial axis 0 .. 1 or None, got 2"),
        (lambda m: SdfPca.fit(m[:1].repeat(4, 1, 1, 1), 1), "shape: expected shapes that differ, got 4 alike"),
        (lambda m: SdfPca.fit(torch.ones(4, 1, 8, 8), 1), "shape: expected signed distances that are negative inside"),
        (lambda m: SdfPca.fit(m, 2).encode(m[:, :, 1:]), r"shape: expected the grid \(24, 20\) of the model"),
        (lambda m: as_distance(torch.full((1, 1, 4, 4), torch.nan)), "finite signed distances, got NaN"),
        (lambda m: as_distance(m.long()), r"expected masks or distances \(n, 1, \*space\), got torch.int64"),
        (lambda m: as_distance(m[:, 0].float()), "expected masks or distances"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call(ellipsoids(8))


def test_distances_are_themselves_and_masks_are_measured():
    mask = ellipsoids(3)
    distance = signed_distance(mask)
    assert torch.equal(as_distance(mask), distance)
    assert torch.equal(as_distance(distance), distance)
    assert torch.equal(clipped(mask, 2.0, (24, 20)), (distance / 2).clamp(-1, 1))


def test_mirrored_shapes_follow_the_others():
    shape = torch.arange(24.0).view(2, 1, 3, 4)
    both = mirrored(shape, 1)
    assert torch.equal(both[:2], shape)
    assert torch.equal(both[2:], shape.flip(3))
    assert mirrored(shape, None) is shape


def test_one_mode_of_variation_is_one_component():
    """Discs of ever larger radius: their clipped distances differ along one line where nothing is clipped."""
    base = signed_distance(ellipsoids(1))
    shift = torch.linspace(-0.2, 0.2, 9).view(-1, 1, 1, 1)
    pca = SdfPca.whole(base + shift)
    first = pca.scale[0] ** 2 / (pca.scale**2).sum()
    assert float(first) > 0.98
    z = pca.encode(base + shift)[:, 0]
    assert float(torch.corrcoef(torch.stack([z, shift.flatten()]))[0, 1].abs()) > 0.999
