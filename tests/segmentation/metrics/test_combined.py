"""The combined index and its parts: known answers, the two forms, and which of them a published table can be of."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.segmentation.metrics import ci, ci_printed, d_a, d_max, s_c
from cfx.segmentation.metrics.combined import harmonic, printed
from tests.segmentation.metrics.brute import random_masks

READERS = random_masks(10, 4, None, (5, 5), seed=3)
ONE = torch.tensor([1.0], dtype=torch.float64)


def test_the_readers_themselves_are_perfect():
    for part in (s_c, d_max, d_a, ci, ci_printed):
        assert part(READERS, READERS).tolist() == pytest.approx([1] * 10)


def test_masks_of_the_whole_image_find_everything():
    full = torch.ones_like(READERS[:, :2])
    some = READERS.flatten(1).any(1)
    assert s_c(full, READERS)[some].tolist() == [1] * int(some.sum())
    assert float(d_max(full, READERS).mean()) < 0.7


def test_unions_that_are_empty():
    none, some = torch.zeros(1, 2, 3, 3).bool(), torch.ones(1, 2, 3, 3).bool()
    assert [float(s_c(a, b)) for a, b in ((none, none), (some, none), (none, some), (some, some))] == [1, 0, 0, 1]


def test_the_maximum_is_over_samples():
    """One good mask does not serve readers who differ."""
    readers = torch.zeros(1, 2, 1, 4).bool()
    readers[0, 0, 0, :2], readers[0, 1, 0, 2:] = True, True
    assert d_max(readers[:, :1].expand(1, 2, 1, 4), readers).tolist() == [0.5]


def test_two_forms_of_the_index():
    x = 0.6 * ONE
    assert float(harmonic((x, x, x))) == pytest.approx(0.6)
    assert float(printed((x, x, x))) == pytest.approx(0.36)
    assert float(harmonic((ONE, 0.5 * ONE, 0.5 * ONE))) == pytest.approx(0.6)
    zero = 0 * ONE
    assert [float(f((a, b, ONE))) for f in (harmonic, printed) for a, b in ((zero, ONE), (zero, zero))] == [0] * 4


def test_which_form_the_published_table_has():
    """D_max .548 and CI .616; with D_a .589, what equal masks have on LIDC, the printed form cannot reach it."""
    most = float(printed((ONE, 0.548 * ONE, 0.589 * ONE)))
    assert most == pytest.approx(0.453, abs=1e-3)
    assert most < 0.616 < float(harmonic((ONE, 0.548 * ONE, 0.589 * ONE)))


@pytest.mark.parametrize("part", [d_a, ci, ci_printed])
def test_one_sample_does_not_differ(part):
    with pytest.raises(InputError, match="at least 2 samples an image"):
        part(READERS[:, :1], READERS)
    with pytest.raises(InputError, match="at least 2 readers an image"):
        part(READERS, READERS[:, :1])
