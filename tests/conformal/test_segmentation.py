"""Masks keep what was promised: shares of voxels, lesions, Dice, any monotone loss, and margins."""

import pytest
import torch

from cfx.conformal import Margins, RiskControl
from cfx.core.errors import InputError
from cfx.core.geometry import smooth
from cfx.core.random import normal


def images(n, seed=0, side=20, readers=None):
    """Probabilities of blobs, and regions drawn from them by readers who differ."""
    z = normal((1, side, side), seed=seed, row=torch.arange(n), stream=0)
    hidden = 4 * smooth(z, 2.5)[:, 0]
    hidden = hidden / hidden.flatten(1).std(1).view(-1, 1, 1)
    edge = 0.5 * normal((readers or 1,), seed=seed, row=torch.arange(n), stream=1)[:, :, None, None]
    region = hidden[:, None] + edge > 1.5
    p = torch.sigmoid(2 * (hidden - 1.5) + normal((side, side), seed=seed, row=torch.arange(n), stream=2))
    return p, region if readers else region[:, 0]


def missed(masks, region):
    return 1 - (masks & region).flatten(1).sum(1) / region.flatten(1).sum(1)


def test_the_share_that_is_missed_is_in_its_band():
    p, region = images(600)
    found = []
    for start in range(0, 500, 50):
        fitted = RiskControl().fit(p[start : start + 50], region[start : start + 50])
        masks = fitted.masks(p[500:])
        found.append(float(missed(masks.masks, region[500:]).nanmean()))
    mean = sum(found) / len(found)
    assert 0.1 - 2 / 51 - 0.02 <= mean <= 0.1 + 0.02
    assert masks.level == 0.9
    assert masks.volume.equal(masks.masks.flatten(1).sum(1))


def test_a_lower_threshold_alone_would_do_and_a_higher_one_would_not():
    p, region = images(40, seed=1)
    fitted = RiskControl().fit(p, region)
    some = region.flatten(1).any(1)
    n = int(some.sum())
    allowed = ((n + 1) * 0.1 - 1) / n

    def risk(t):
        return float(missed(p >= t, region)[some].double().mean())

    assert risk(fitted.threshold - 1e-6) <= allowed + 1e-9 < risk(fitted.threshold + 1e-3)


def test_a_function_finds_the_same_threshold_on_its_grid():
    p, region = images(60, seed=2)

    def share(masks, truth):
        return missed(masks, truth).nan_to_num()

    grid = RiskControl(loss=share).fit(p, region)
    exact = RiskControl().fit(p, region)
    assert exact.threshold - 0.0101 <= grid.threshold <= exact.threshold + 1e-9
    with pytest.raises(InputError, match="never rise as masks grow"):
        RiskControl(loss=lambda masks, truth: 0.5 + 0.1 * masks.flatten(1).double().mean(1)).fit(p, region)


def test_lesions_are_found_and_counted_by_image():
    p = torch.zeros(30, 8, 8)
    region = torch.zeros(30, 8, 8, dtype=torch.bool)
    region[:, 1, 1:3] = region[:, 6, 6] = True
    p[:, 1, 2] = torch.linspace(0.5, 0.9, 30)  # the first lesion has one voxel that shows
    p[:, 6, 6] = 0.9
    region[15:, 6, 6] = False
    fitted = RiskControl(0.1, "lesions").fit(p, region)
    masks = fitted.masks(p).masks
    # each of the first 15 images loses half with its first lesion: (31 * 0.1 - 1) = 2.1, so four of them may
    assert int((~masks[:15, 1, 2]).sum()) == 4
    assert not masks[:, 1, 1].any()


def test_patients_count_once_and_readers_alike():
    p, region = images(80, seed=3, readers=3)
    by_image = RiskControl().fit(p, region)
    twice = RiskControl().fit(p.repeat(2, 1, 1), region.repeat(2, 1, 1, 1), groups=torch.arange(160) % 80)
    assert twice.rows == by_image.rows
    assert twice.most == pytest.approx(by_image.most)
    one = RiskControl().fit(p, region[:, 0])
    same = RiskControl().fit(p, region[:, :1].expand(-1, 3, -1, -1))
    assert same.most == one.most


def test_dice_is_promised_with_confidence_or_not_at_all():
    p, region = images(400, seed=4)
    keep = region.flatten(1).sum(1) > 20
    p, region = p[keep], region[keep]
    half = len(p) // 2
    fitted = RiskControl(0.55, "dice").fit(p[:half], region[:half])
    masks = fitted.masks(p[half:]).masks
    both = (masks & region[half:]).flatten(1).sum(1)
    dice = 2 * both / (masks.flatten(1).sum(1) + region[half:].flatten(1).sum(1))
    assert float(1 - dice.mean()) <= 0.55
    with pytest.raises(InputError, match=r"no threshold keeps 1 - Dice at most 0\.01"):
        RiskControl(0.01, "dice").fit(p[:half], region[:half])


def test_margins_grow_masks_as_far_as_regions_ask_for():
    mask = torch.zeros(40, 12, 12, dtype=torch.bool)
    mask[:, 5, 5] = True
    region = torch.zeros_like(mask)
    region[:, 5, 5:8] = True  # two of three voxels are 1 and 2 away
    grown = Margins(0.1).fit(mask, region)
    assert grown.radius == 2
    assert region[0].logical_and(~grown.masks(mask).masks[0]).sum() == 0
    assert Margins(0.1, spacing=(1.0, 0.5)).fit(mask, region).radius == 1
    assert Margins(0.4).fit(mask, region).radius == 1
    empty = Margins(0.1).distance(torch.cat([mask[:1], torch.zeros_like(mask[:1])]))
    assert empty[1].isinf().all()  # the mask of another image is not near
    assert Margins().fit(torch.zeros_like(mask), region).radius == torch.inf


def test_too_few_images_and_bad_input():
    p, region = images(8, seed=5)
    assert RiskControl().fit(p, region).masks(p).masks.all()
    with pytest.raises(InputError, match="p: expected probabilities in"):
        RiskControl().fit(p * 2, region)
    with pytest.raises(InputError, match="region: expected"):
        RiskControl().fit(p, region[:, :4])
    with pytest.raises(InputError, match="region: expected True and False"):
        RiskControl().fit(p, region.long() * 3)
    with pytest.raises(InputError, match="loss: expected one of"):
        RiskControl(loss="iou")
    with pytest.raises(InputError, match="ids: expected other subjects"):
        RiskControl().fit(p, region, ids=list("abcdefgh")).masks(p[:1], ids=["a"])
    with pytest.raises(InputError, match="spacing: expected a number"):
        Margins(spacing=(1.0,)).fit(region, region)
