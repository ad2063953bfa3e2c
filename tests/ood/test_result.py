"""A result of scores says what each code means, and can be sliced and joined."""

import torch

from cfx.ood import Membership, OodScores, fit
from tests.ood.detectors import MeanDetector, cohort, images


def test_every_code_has_a_meaning():
    assert all(code.meaning.endswith(".") for code in Membership)


def test_rows_are_kept_together():
    found = fit(cohort(20), MeanDetector()).score(images(6))
    assert torch.equal(OodScores.cat([found[:2], found[2:]]).p, found.p)
    assert "6 rows" in repr(found)
