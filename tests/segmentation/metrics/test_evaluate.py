"""All metrics against brute force in fractions, a thousand images, and what is the same however they are asked for."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.segmentation import metrics
from cfx.segmentation.metrics.evaluate import evaluate
from tests.segmentation.metrics import brute

EACH = 168  # images of each of six kinds: 1008


def expected(s, y, voxels):
    three = brute.sensitivity(s, y), brute.mean(max(brute.dice(a, b) for a in s) for b in y), brute.agreement(s, y)
    a, b, c = three
    return {
        "ged": brute.ged(s, y),
        "ged_limit": brute.ged(s, y, True),
        "ged_debiased": brute.ged(s, y, True, True),
        "hm_iou": brute.tiled(s, y),
        "best_m_iou": brute.matched([[brute.iou(u, v) for v in y] for u in s]),
        "s_c": a,
        "d_max": b,
        "d_a": c,
        "ci": 3 / (1 / a + 1 / b + 1 / c) if a * b * c else 0,
        "ci_printed": 3 * a * b * c / (a + b + c) if a * b * c else 0,
        "diversity": brute.within(s, True),
        "reader_diversity": brute.within(y, True),
        "ncc": brute.correlation(s, y, voxels),
        "consensus_dice": brute.consensus(s, y, voxels),
        "volume_crps": brute.crps(s, y),
    }


@pytest.mark.parametrize(("n", "m", "classes", "space"), brute.CASES)
def test_every_figure_is_that_of_brute_force(n, m, classes, space):
    samples, readers = (brute.random_masks(EACH, k, classes, space, seed) for k, seed in ((n, n), (m, 100 + m)))
    found = evaluate(samples, readers, classes)
    voxels = samples[0, 0].numel()
    empty = [not bool(masks.any()) for masks in readers.flatten(0, 1)]
    assert 0.1 * len(empty) < sum(empty) < 0.6 * len(empty)
    for i in range(EACH):
        for name, value in expected(brute.sets(samples[i], classes), brute.sets(readers[i], classes), voxels).items():
            assert float(getattr(found, name)[i]) == pytest.approx(float(value), abs=1e-14, rel=0), (name, i)


def test_a_function_says_what_the_whole_says():
    samples, readers = brute.random_masks(20, 4, 3, (4, 4), 1), brute.random_masks(20, 3, 3, (4, 4), 2)
    whole = evaluate(samples, readers, 3)
    for name in ("ged", "hm_iou", "best_m_iou", "s_c", "d_max", "d_a", "ci", "ci_printed", "ncc", "consensus_dice"):
        assert torch.equal(getattr(metrics, name)(samples, readers, 3), getattr(whole, name)), name
    assert torch.equal(metrics.volume_crps(samples, readers, 3), whole.volume_crps)
    assert torch.equal(metrics.diversity(samples, 3), whole.diversity)
    assert torch.equal(metrics.diversity(readers, 3), whole.reader_diversity)
    assert torch.equal(metrics.ged(samples, readers, 3, form="u"), whole.ged_limit)
    assert torch.equal(metrics.ged(samples, readers, 3, form="u", reader_form="u"), whole.ged_debiased)
    assert (whole.n_samples, whole.n_readers) == (4, 3)


def test_one_foreground_class_is_a_boolean_mask():
    samples, readers = brute.random_masks(20, 4, 2, (4, 4), 1), brute.random_masks(20, 3, 2, (4, 4), 2)
    numbers, flags = evaluate(samples, readers, 2), evaluate(samples.bool(), readers.bool())
    assert all(torch.equal(numbers.parts()[name], flags.parts()[name]) for name in numbers.parts() if name != "ids")


def test_images_do_not_see_each_other(monkeypatch):
    samples, readers = brute.random_masks(9, 4, None, (4, 4), 1), brute.random_masks(9, 3, None, (4, 4), 2)
    together = evaluate(samples, readers, ids=tuple("abcdefghi"))
    monkeypatch.setitem(evaluate.__globals__, "_VOXELS", 1)
    alone = evaluate(samples, readers, ids=tuple("abcdefghi"))
    assert together.ids == alone.ids == tuple("abcdefghi")
    assert all(torch.equal(together.parts()[k], alone.parts()[k]) for k in together.parts() if k != "ids")
    order = torch.tensor([3, 1, 2, 0])
    other = evaluate(samples[:, order], readers[:, torch.tensor([2, 0, 1])])
    assert torch.allclose(other.ci, together.ci, atol=1e-14)
    assert torch.allclose(other.ged, together.ged, atol=1e-14)
    assert torch.allclose(other.hm_iou, together.hm_iou, atol=1e-14)


def test_no_image_is_no_row():
    assert len(evaluate(torch.zeros(0, 2, 4, 4).bool(), torch.zeros(0, 4, 4, 4).bool())) == 0


def test_one_sample_has_no_limit():
    with pytest.raises(InputError, match=r"samples: expected masks .*at least 2 samples an image; got shape"):
        evaluate(torch.zeros(3, 1, 4, 4).bool(), torch.zeros(3, 4, 4, 4).bool())
