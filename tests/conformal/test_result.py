"""Sets and intervals say how much they leave open, what they cover, and what that rests on."""

import pytest
import torch

from cfx.conformal import LAC, Certainty, Intervals, Mondrian
from cfx.conformal.result import certainty
from cfx.core.conformal import coverage_band
from cfx.core.errors import InputError
from tests.conformal.samples import drawn


@pytest.fixture(scope="module")
def sets():
    fitted = LAC().fit(*drawn(200, seed=1), names=["A", "B", "C", "D"])
    return fitted.sets(drawn(100, seed=2)[0])


def test_every_size_has_its_verdict():
    found = certainty(torch.tensor([0, 1, 2, 3]), 3)
    assert found.tolist() == [Certainty.NONE, Certainty.ONE, Certainty.SEVERAL, Certainty.ALL]


def test_a_set_says_its_level_and_its_assumption_in_words(sets):
    assert (sets.level, sets.calibrated) == (0.9, 200)
    assert "exchangeable" in sets.assumption
    row = int((sets.size == 2).nonzero()[0])
    names = [n for n, inside in zip("ABCD", sets.sets[row].tolist(), strict=True) if inside]
    assert sets.sentence(row) == (
        "Of 100 images like these, at least 90 sets hold the truth on average; this one could be "
        f"{names[0]} or {names[1]}."
    )


def test_coverage_comes_with_its_band_and_rows_are_selected(sets):
    y = drawn(100, seed=2)[1]
    found = sets.coverage(y)
    assert found["coverage"] == float(sets.covered(y).double().mean())
    assert (found["coverage_band_low"], found["coverage_band_high"]) == coverage_band(200, 100, 1 - sets.level)
    assert len(sets[torch.tensor([3, 5])]) == 2
    with pytest.raises(InputError, match="y: expected a class"):
        sets.covered(y + 2)


def test_the_band_of_sets_by_class_counts_each_class():
    p, y = drawn(200, seed=1)
    q, truth = drawn(100, seed=2)
    found = Mondrian().fit(p, y).sets(q)
    assert tuple(found.by_class) == tuple(y.bincount().tolist())
    band = coverage_band(y.bincount().tolist(), truth.bincount(minlength=4).tolist(), 0.1)
    low = found.coverage(truth)["coverage_band_low"]
    assert low == pytest.approx(band[0], abs=0.011)  # 1 - 0.9 is not quite 0.1


def test_intervals_cover_one_number_or_several():
    found = Intervals(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]), torch.arange(2), "cqr", 0.9, 10, "")
    assert found.covered(torch.tensor([0.5, 0.5])).tolist() == [True, False]
    assert found.covered(torch.tensor([[0.5, 2.0], [1.0, 2.0]])).tolist() == [[True, False], [True, True]]
