"""Readers who follow a known law: what they draw is distributed as stated, and the image does not see them."""

from functools import cache

import pytest
import torch

from cfx.core.cohort import Cohort
from cfx.data import load_cohort
from cfx.data.brain_readers import BrainReadersConfig, drawing_probability, open_brain_readers, true_masks, visible
from cfx.segmentation.metrics import diversity, ged

N = 48
CONFIG = BrainReadersConfig(n=N, seed=5, readers=24)
ROW = torch.arange(N)


@cache
def brains() -> Cohort:
    return open_brain_readers(CONFIG).load()


def further(count: int, reader_seed: int = 0, first: int = 24):
    return true_masks(brains().x, count, CONFIG.model_copy(update={"reader_seed": reader_seed}), row=ROW, first=first)


def test_the_image_does_not_depend_on_its_readers():
    other = open_brain_readers(BrainReadersConfig(n=N, seed=5, readers=3, reader_seed=9)).load()
    assert torch.equal(other.x, brains().x)
    assert torch.equal(other.lesion, brains().lesion)
    assert not torch.equal(other.readings, brains().readings[:, :3])
    assert not torch.equal(open_brain_readers(BrainReadersConfig(n=2, seed=6)).load().x, brains().x[:2])


def test_a_reader_is_the_same_however_many_are_asked():
    assert torch.equal(true_masks(brains().x, 3, CONFIG, row=ROW), brains().readings[:, :3])
    assert torch.equal(further(4, first=20), brains().readings[:, 20:])


def test_readers_draw_as_often_as_said():
    p, count = drawing_probability(brains().x, CONFIG).double(), 96
    drew = further(count).flatten(2).any(2).double().mean(1)
    z = (drew - p) / (p * (1 - p) / count).sqrt()
    mixed = (p > 0.05) & (p < 0.95)
    assert float(z[mixed].abs().max()) < 4
    assert 0.8 < float(z[mixed].square().mean().sqrt()) < 1.25
    assert bool((drew[p == 1] == 1).all())


def test_probabilities_are_spread():
    p = drawing_probability(brains().x, CONFIG)
    assert float(p.min()) < 0.35
    assert float(p.max()) > 0.9
    assert 0.15 < float(p.std()) < 0.35


def test_whoever_draws_draws_the_brightest_place_and_no_tissue():
    y, masks = visible(brains().x, CONFIG), brains().readings
    drew = masks.flatten(2).any(2)
    place = y.flatten(1).argmax(1)
    assert torch.equal(masks.flatten(2)[torch.arange(N), :, place], drew)
    assert not bool((masks & (y <= 0)).any())


def test_no_lesion_no_mask():
    plain = load_cohort({"kind": "brain", "n": 32, "seed": 2}).x / 2 - 0.5
    assert bool((drawing_probability(plain, CONFIG) == 0).all())
    assert not bool(true_masks(plain, 4, CONFIG, row=torch.arange(32)).any())


def test_masks_of_two_crowds_are_exchangeable():
    a, b = further(32), further(32, reader_seed=7)
    apart = ged(a, b, form="u", reader_form="u")
    assert abs(float(apart.mean())) < 3 * float(apart.std()) / N**0.5
    own = ged(a, brains().readings, form="u", reader_form="u")
    assert abs(float(own.mean())) < 3 * float(own.std()) / N**0.5


def test_readers_differ_and_their_masks_cross():
    masks = brains().readings
    assert 0.3 < float(diversity(masks).mean()) < 0.7
    first, second = masks[:, 0::2], masks[:, 1::2]
    both = first.flatten(2).any(2) & second.flatten(2).any(2)
    more, less = (first & ~second).flatten(2).any(2), (second & ~first).flatten(2).any(2)
    assert 0.1 < float((more & less)[both].double().mean()) < 0.9


def test_the_softer_the_edge_the_further_readers_are_apart():
    """At the same brightness: outlines of a blurred image differ more."""
    at = (torch.arange(64) - 31.5) * CONFIG.spacing
    away = (at[:, None].square() + at.square()).sqrt()
    x = torch.stack([2 * torch.sigmoid((14 - away) / w) * 0.45 - 0.1 for w in (1.5, 5.0)])[:, None]
    masks = true_masks(x, 64, CONFIG, row=torch.arange(2))
    area = masks.flatten(2).sum(2).double()
    spread = torch.stack([a[a > 0].std() / a[a > 0].mean() for a in area])
    assert float(spread[1]) > 1.5 * float(spread[0])


def test_rows_one_by_one_are_the_rows_together():
    lazy = open_brain_readers(CONFIG.model_copy(update={"lazy": True}))
    some = lazy[torch.tensor([7, 3])]
    assert torch.allclose(some.x, brains().x[[7, 3]], atol=1e-5)
    assert float((some.readings != brains().readings[[7, 3]]).double().mean()) < 1e-4
    later = open_brain_readers(BrainReadersConfig(n=2, start=7, seed=5, readers=24)).load()
    assert torch.allclose(later.x[0], some.x[0], atol=1e-5)
    assert later.ids[0] == some.ids[0]


def test_volumes():
    config = BrainReadersConfig(n=2, size=32, dims=3, readers=2)
    cohort = open_brain_readers(config).load()
    assert cohort.x.shape == (2, 1, 32, 32, 32)
    assert cohort.readings.shape == (2, 2, 32, 32, 32)
    masks = true_masks(cohort.x, 64, config, row=torch.arange(2))
    drew = masks.flatten(2).any(2).double().mean(1)
    assert torch.allclose(drew, drawing_probability(cohort.x, config).double(), atol=0.25)


@pytest.mark.parametrize("bad", [{"readers": 0}, {"size": 8}, {"n": 0}, {"spread": 1}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(Exception, match=next(iter(bad))):
        BrainReadersConfig(**bad)
