"""The energy distance: its laws, and how it changes with the number of samples."""

import math
from itertools import product

import pytest
import torch

from cfx.core.errors import InputError
from cfx.segmentation.metrics import diversity, ged, ged_at
from tests.segmentation.metrics.brute import random_masks

READERS = random_masks(12, 4, None, (5, 5), seed=3)


def every_draw(n: int) -> torch.Tensor:
    """All ways to draw n of four readers with replacement, of each image: `(12, 4^n, n, 5, 5)`."""
    return READERS[:, torch.tensor(list(product(range(4), repeat=n)))]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_perfect_sampler_has_diversity_over_n(n):
    draws = every_draw(n)
    k = draws.shape[1]
    found = ged(draws.flatten(0, 1), READERS.repeat_interleave(k, 0)).unflatten(0, (12, k)).mean(1)
    spread = diversity(READERS, form="v")  # of two independent draws, which may be the same reader's
    assert torch.allclose(found, spread / n, atol=1e-14)
    assert float(spread.max()) > 0.5


def test_without_bias_a_perfect_sampler_has_nothing():
    draws = every_draw(3)
    k = draws.shape[1]
    readers = READERS.repeat_interleave(k, 0)
    limit = ged(draws.flatten(0, 1), readers, form="u").unflatten(0, (12, k)).mean(1)
    assert torch.allclose(limit, torch.zeros(12, dtype=torch.float64), atol=1e-14)


def test_debiased_in_both_the_true_distribution_has_nothing():
    """Two readers and two samples from one distribution over four masks, all ways to draw them."""
    draws = every_draw(2)
    k = draws.shape[1]
    samples, readers = draws.repeat_interleave(k, 1).flatten(0, 1), draws.repeat(1, k, 1, 1, 1).flatten(0, 1)
    found = ged(samples, readers, form="u", reader_form="u").unflatten(0, (12, k * k))
    assert torch.allclose(found.mean(1), torch.zeros(12, dtype=torch.float64), atol=1e-14)
    half = ged(samples, readers, form="u").unflatten(0, (12, k * k)).mean(1)
    assert torch.allclose(half, diversity(READERS, form="v") / 2, atol=1e-14)  # D / M with M = 2


def test_conversion_is_exact_on_average():
    few, many = every_draw(2), every_draw(3)
    other = random_masks(12, 4, None, (5, 5), seed=8)
    mean = {
        n: ged(d.flatten(0, 1), other.repeat_interleave(d.shape[1], 0)).unflatten(0, d.shape[:2]).mean(1)
        for n, d in ((2, few), (3, many))
    }
    spread = diversity(READERS, form="v")
    assert torch.allclose(ged_at(mean[2], spread, n=2, to=3), mean[3], atol=1e-14)


def test_limit_and_conversion_agree_on_every_image():
    samples = random_masks(12, 6, None, (5, 5), seed=5)
    limit = ged_at(ged(samples, READERS), diversity(samples), n=6, to=math.inf)
    assert torch.allclose(limit, ged(samples, READERS, form="u"), atol=1e-14)
    assert torch.allclose(diversity(samples, form="v"), diversity(samples) * 5 / 6, atol=1e-14)
    assert ged_at(0.234, 0.55, n=16, to=4) == pytest.approx(0.337, abs=1e-3)  # a published figure, converted


def test_the_readers_themselves_have_no_distance():
    assert torch.allclose(ged(READERS, READERS), torch.zeros(12, dtype=torch.float64), atol=1e-15)
    assert bool((ged(random_masks(12, 3, None, (5, 5), 9), READERS) > -1e-15).all())  # d is of negative type


@pytest.mark.parametrize(("form", "reader_form", "name"), [("u", "v", "samples"), ("v", "u", "readers")])
def test_the_u_form_needs_two(form, reader_form, name):
    samples, readers = (READERS[:, :1], READERS) if name == "samples" else (READERS, READERS[:, :1])
    assert torch.isfinite(ged(samples, readers)).all()
    with pytest.raises(InputError, match=f"{name}: expected masks .*at least 2 {name} an image"):
        ged(samples, readers, form=form, reader_form=reader_form)


def test_diversity_and_conversion_refuse_too_few():
    with pytest.raises(InputError, match="masks: expected masks"):
        diversity(READERS[:, :1])
    assert diversity(READERS[:, :1], form="v").tolist() == [0] * 12
    with pytest.raises(InputError, match="n, to: expected at least one sample, got 0 and 4"):
        ged_at(0.2, 0.5, n=0, to=4)
