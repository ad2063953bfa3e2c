"""Traces of shape erased from normalised images: no linear reader finds them, an outline warp changes nothing."""

from dataclasses import replace

import pytest
import torch

from cfx.confounder.shape.erasure import ShapeFree, _erase, _known, _within
from cfx.confounder.shape.normalise import BACKGROUND, Normaliser, mean_shape
from cfx.core.cohort import Cohort
from cfx.core.distance import solid
from cfx.core.errors import InputError
from cfx.data import BrainConfig, load_cohort
from cfx.data.brain import Confounder


@pytest.fixture(scope="module")
def train() -> Cohort:
    return load_cohort(BrainConfig(n=640, seed=4, size=32, confounders=(Confounder(kind="shape", q=0.9),)))


@pytest.fixture(scope="module")
def free(train: Cohort) -> ShapeFree:
    return ShapeFree.fit(train, Normaliser(mean_shape(solid(train.mask))), scores=20, products=4)


def explained(x: torch.Tensor, z: torch.Tensor, y: torch.Tensor) -> float:
    """Share of the variance of z within classes that x explains, by least squares, allowing for chance."""
    hot = torch.nn.functional.one_hot(y).double()
    x, z = (v.flatten(1).double() for v in (x, z))
    x, z = (v - hot @ torch.linalg.lstsq(hot, v).solution for v in (x, z))
    _, _, v = torch.linalg.svd(x, full_matrices=False)
    x = x @ v[:30].T
    left = (z - x @ torch.linalg.lstsq(x, z).solution).square().sum() / z.square().sum()
    return 1 - float(left) * (len(x) - 1) / (len(x) - 31)


@pytest.mark.parametrize("n", [300, 60], ids=["more rows than columns", "more columns than rows"])
def test_the_map_is_that_of_the_theorem(n: int) -> None:
    """x' has no covariance with z, the map is a projection, and what it leaves alone has no covariance with z."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(n, 3, generator=g, dtype=torch.float64)
    x = torch.randn(n, 80, generator=g, dtype=torch.float64) @ torch.randn(80, 80, generator=g, dtype=torch.float64)
    x = x + z @ torch.randn(3, 80, generator=g, dtype=torch.float64) * 5
    x, z = x - x.mean(0), z - z.mean(0)
    reading, writing = _erase(x, z)
    left = x - x @ reading @ writing
    assert (left.T @ z).abs().max() < 1e-9 * (x.T @ z).abs().max()
    assert torch.allclose(writing @ reading, torch.eye(3, dtype=torch.float64), atol=1e-9)
    other = torch.linalg.svd(x.T @ z, full_matrices=True).U[:, 3:]  # readers that see nothing of z
    assert torch.allclose(left @ reading, torch.zeros(n, 3, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(left @ other, x @ other, atol=1e-8)


def test_it_changes_least() -> None:
    """Of the projections that hide z the whitened one is the nearest to x; the orthogonal one is further away."""
    g = torch.Generator().manual_seed(1)
    scale = torch.logspace(0, 1, 20, dtype=torch.float64)
    x = torch.randn(4000, 20, generator=g, dtype=torch.float64) * scale
    z = x @ torch.randn(20, 2, generator=g, dtype=torch.float64)
    x, z = x - x.mean(0), z - z.mean(0)
    reading, writing = _erase(x, z)
    c = torch.linalg.qr(x.T @ z).Q
    assert (x @ reading @ writing).square().sum() < 0.9 * (x @ c @ c.T).square().sum()


def test_little_is_left_in_new_subjects_and_the_class_is_kept(free: ShapeFree) -> None:
    """Learned where shape and class go together, judged where they do not; what is left shrinks with the training."""
    new = load_cohort(BrainConfig(n=640, seed=4, start=5000, size=32, confounders=(Confounder(kind="shape", q=0.5),)))
    planted = new.covariates["planted_shape"][:, None]
    before, after = free.normaliser.cohort(new).x, free.cohort(new).x
    assert explained(after, planted, new.y) < 0.4 * explained(before, planted, new.y)
    gap = [x[new.y == 1].mean(0) - x[new.y == 0].mean(0) for x in (before, after)]
    cosine = torch.nn.functional.cosine_similarity(gap[0].flatten(), gap[1].flatten(), dim=0)
    assert float(cosine) > 0.9


def test_nothing_linear_is_left_in_the_training_images(train: Cohort, free: ShapeFree) -> None:
    z = _known(train.mask, 4, 0)  # the first scores, of which images know most
    assert explained(free.normaliser.cohort(train).x, z, train.y) > 0.2
    assert explained(free.cohort(train).x, z, train.y) < 0.02  # the ridge and the limits of grey leave a little


def test_products_are_erased_too(train: Cohort, free: ShapeFree) -> None:
    """Four scores have ten products, each a direction of its own."""
    linear = ShapeFree.fit(train, free.normaliser, scores=20, products=0)
    assert free.reading.shape[1] == linear.reading.shape[1] + 10


def test_another_outline_changes_as_little_as_behind_the_normaliser(train: Cohort, free: ShapeFree) -> None:
    """The mask is not read: images equal after normalisation stay equal whatever their masks were."""
    some = train[:16]
    done = free.normaliser(some.x, some.mask)
    again = free.normaliser(done.transfer.x, done.transfer.mask)
    normal = (again.x - done.x).abs().mean()
    assert (free(done.transfer.x, done.transfer.mask) - free(some.x, some.mask)).abs().mean() < 3 * normal + 1e-6


def test_the_support_is_the_same_bits_for_all(free: ShapeFree, train: Cohort) -> None:
    x = free(train.x[:8], train.mask[:8])
    assert bool(((x > BACKGROUND) == free.normaliser.support).all())
    assert torch.allclose(x[3], free(train.x[3:4], train.mask[3:4])[0], atol=1e-5)


def test_volumes_of_which_there_are_few() -> None:
    """More voxels than images: what the training images showed of shape is gone from them, on one support."""
    cohort = load_cohort(BrainConfig(n=24, seed=4, size=24, dims=3, confounders=(Confounder(kind="shape", q=0.5),)))
    free = ShapeFree.fit(cohort, Normaliser(mean_shape(solid(cohort.mask))), scores=2, products=0)
    x, z = free.cohort(cohort).x, _known(cohort.mask, 2, 0)
    before = _within(free.normaliser.cohort(cohort).x.flatten(1).double(), cohort.y).T @ _within(z, cohort.y)
    after = _within(x.flatten(1).double(), cohort.y).T @ _within(z, cohort.y)
    assert after.norm() < 0.1 * before.norm()  # the ridge and the limits of grey leave a little
    assert bool(((x > BACKGROUND) == free.normaliser.support).all())


def test_truth_loses_its_traces_as_well(free: ShapeFree, train: Cohort) -> None:
    done = free.cohort(train[:8])
    same = free.cohort(replace(train[:8], x=train.x_true[:8])).x
    assert torch.allclose(done.x_true, same, atol=1e-5)


def test_bad_input_is_named(train: Cohort, free: ShapeFree) -> None:
    with pytest.raises(InputError, match="cohort: expected masks and one class label"):
        ShapeFree.fit(replace(train, mask=None), free.normaliser)
    with pytest.raises(InputError, match="expected 20 rows, a score and 0 or more, got 5, 20, 12"):
        ShapeFree.fit(train[:5], free.normaliser, scores=20)
