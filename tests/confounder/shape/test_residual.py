"""Shape regressed out of normalised images: the normal equations, the class kept, and one support for all."""

from dataclasses import replace

import pytest
import torch

from cfx.confounder.shape.normalise import BACKGROUND, Normaliser, mean_shape
from cfx.confounder.shape.residual import ShapeFree
from cfx.core.distance import solid
from cfx.core.errors import InputError
from cfx.core.values import Cohort
from cfx.data import BrainConfig, load_cohort
from cfx.data.brain import Confounder


@pytest.fixture(scope="module")
def train() -> Cohort:
    return load_cohort(BrainConfig(n=240, seed=4, size=32, confounders=(Confounder(kind="shape", q=0.9),)))


@pytest.fixture(scope="module")
def free(train: Cohort) -> ShapeFree:
    return ShapeFree.fit(train, Normaliser(mean_shape(solid(train.mask))), scores=20)


def explained(x: torch.Tensor, z: torch.Tensor, y: torch.Tensor) -> float:
    """Share of the variance within classes that the scores explain, by least squares."""
    hot = torch.nn.functional.one_hot(y).double()
    x, z = (v.flatten(1).double() for v in (x, z))
    x, z = (v - hot @ torch.linalg.lstsq(hot, v).solution for v in (x, z))
    fit = z @ torch.linalg.lstsq(z, x).solution
    return float(fit.square().sum() / x.square().sum())


def test_nothing_linear_is_left_in_the_training_images(train: Cohort, free: ShapeFree) -> None:
    z = free.scores(train.mask)
    before = free.normaliser.cohort(train).x
    after = free.cohort(train).x
    assert explained(before, z, train.y) > 0.2
    assert explained(after, z, train.y) < 0.02  # the ridge and the limits of grey leave a little


def test_little_is_left_in_new_images_and_the_class_is_kept(free: ShapeFree) -> None:
    new = load_cohort(BrainConfig(n=240, seed=4, start=5000, size=32, confounders=(Confounder(kind="shape", q=0.5),)))
    planted = new.covariates["planted_shape"][:, None]
    before, after = free.normaliser.cohort(new).x, free.cohort(new).x
    assert explained(after, planted, new.y) < 0.3 * explained(before, planted, new.y)
    gap = [x[new.y == 1].mean(0) - x[new.y == 0].mean(0) for x in (before, after)]
    cosine = torch.nn.functional.cosine_similarity(gap[0].flatten(), gap[1].flatten(), dim=0)
    assert float(cosine) > 0.9


def test_the_support_is_the_same_bits_for_all(free: ShapeFree, train: Cohort) -> None:
    x = free(train.x[:8], train.mask[:8])
    assert bool(((x > BACKGROUND) == free.normaliser.support).all())
    assert torch.allclose(x[3], free(train.x[3:4], train.mask[3:4])[0], atol=1e-5)


def test_bad_input_is_named(train: Cohort, free: ShapeFree) -> None:
    with pytest.raises(InputError, match="cohort: expected masks and one class label"):
        ShapeFree.fit(replace(train, mask=None), free.normaliser)
    with pytest.raises(InputError, match="expected 20 rows and a score, got 5 and 20"):
        ShapeFree.fit(train[:5], free.normaliser, scores=20)
