"""Shares and verdicts of a result, counted over all rows."""

import re
from dataclasses import replace

import pytest
import torch

from cfx.atlas import Atlas, read_atlas
from cfx.core.cohort import Cohort
from cfx.core.errors import AtlasError, InputError
from cfx.counterfactual import Minimal, explain
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.report import write_report
from tests.counterfactual.metrics.hand_made import result_of
from tests.counterfactual.toys import ClassGaussian, Linear, class_means, cohort

X = torch.zeros(5, 1, 4, 4)


def test_codes_have_a_meaning_and_a_word():
    assert [int(v) for v in Verdict] == [0, 1, 2, 3, 4]
    assert all(v.meaning.endswith(".") for v in Verdict)
    assert len({v.meaning for v in Verdict}) == 5
    assert Verdict(3) is Verdict.UNSTABLE
    result = replace(result_of(X, X), verdict=torch.tensor([4, 2, 0, 1, 3]))
    assert result.verdicts == ("refused", "budget", "flipped", "already", "unstable")


def test_valid_is_who_reaches_the_margin_to_within_rounding():
    result = replace(result_of(X, X), margin_after=torch.tensor([2.0, 1.0, 1 - 5e-6, 0.99, torch.nan]))
    assert result.validity == pytest.approx(3 / 5)


def test_flipped_is_who_the_classifier_gives_to_the_target_whatever_the_margin():
    probs = torch.tensor([[0.4, 0.6], [0.6, 0.4], [0.1, 0.9], [0.9, 0.1], [0.5, 0.5]])
    result = replace(result_of(X, X, [False] * 5), probs_after=probs)
    assert result.flipped.tolist() == [True, False, True, False, False]
    assert result.validity == 0
    assert replace(result, target=1 - result.target).flipped.tolist() == [False, True, False, True, True]


def test_certified_is_whose_next_smaller_change_fails():
    result = result_of(X, X)
    assert not result.certified.any()
    tried = replace(result, smaller=torch.tensor([0.9, 1.0, 1.1, torch.nan, -torch.inf]))
    assert tried.certified.tolist() == [True, False, False, False, True]


def test_the_oracle_has_its_own_verdict_and_may_be_absent():
    result = result_of(X, X)
    assert result.oracle_validity is None
    says = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.9, 0.1], [0.3, 0.7]])
    assert replace(result, oracle_probs_before=says, oracle_probs_after=says).oracle_validity == pytest.approx(2 / 5)


@pytest.fixture(scope="module")
def known():
    toys = cohort(class_means((8, 8)), 6)
    ids, age = [f"sub-{i}" for i in range(6)], list(range(60, 66))
    return Cohort(
        toys.x, y=toys.y, ids=ids, classes=["CN", "AD"], covariates={"age": age},
        affine=torch.eye(4).repeat(6, 1, 1) * 2, spacing=torch.full((6, 2), 0.5), mask=toys.x > 0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(known):
    means = class_means((8, 8))
    return explain(known, Linear((8, 8)), ClassGaussian(means), method=Minimal(trials=1), batch_size=4)


class TestKnownInputs:
    """What is known of the inputs goes with the rows, into an atlas and out of it."""

    def alike(self, a, b):
        assert a.plain() == b.plain()
        assert a.parts().keys() == b.parts().keys()
        for name, value in a.parts().items():
            there = b.parts()[name]
            assert torch.equal(value, there) if isinstance(value, torch.Tensor) else value == there, name

    def test_explain_keeps_it(self, known, result):
        self.alike(result.cohort, known)
        assert result.ids == known.ids
        assert list(result.classes) == ["CN", "AD"]
        assert result.cohort.x.data_ptr() == result.x.data_ptr()  # kept once

    def test_rows_are_selected_joined_and_put_with_it(self, known, result):
        self.alike(result[[4, 1]].cohort, known[[4, 1]])
        self.alike(Counterfactuals.cat([result[:2], result[2:]]).cohort, known)
        other = result[[0]].of_cohort(known[[5]].replace(x=known.x[[0]]))
        assert result.put([3], other).ids == (*known.ids[:3], "sub-5", *known.ids[4:])

    def test_an_atlas_and_a_report_get_it_from_the_result(self, known, result, tmp_path):
        path = result.save(tmp_path / "a.zarr")
        atlas = Atlas(path)
        self.alike(atlas.read_cohort(), known)
        assert atlas.attributes["classes"] == ["CN", "AD"]
        page = write_report(tmp_path / "r.html", result).read_text()
        assert "sub-3" in page
        assert "AD" in page
        again = read_atlas(path)
        assert torch.equal(again.x_cf, result.x_cf)
        self.alike(again.cohort, known)
        assert (again.ids, list(again.classes)) == (known.ids, ["CN", "AD"])
        assert again.cohort.x.data_ptr() == again.x.data_ptr()  # kept once
        page = write_report(tmp_path / "s.html", again).read_text()
        assert "sub-3" in page
        assert "AD" in page

    def test_a_second_one_is_written_where_it_is_asked_for(self, result, tmp_path):
        path = result.save(tmp_path / "a.zarr")
        other = result.replace(x_cf=result.x)
        with pytest.raises(AtlasError, match=r"exists; choose another path, or ask for it: exists='resume' or 'over"):
            other.save(path)
        assert torch.equal(read_atlas(other.save(path, exists="resume")).x_cf, result.x_cf)  # its rows are there
        assert torch.equal(read_atlas(other.save(path, exists="overwrite")).x_cf, result.x)

    def test_without_it_rows_are_known_by_their_numbers(self, result, tmp_path):
        bare = result.replace(cohort=None, row=torch.arange(10, 16))
        assert bare.ids == tuple(map(str, range(10, 16)))
        assert bare[[1, 2]].ids == ("11", "12")
        assert Atlas(bare.save(tmp_path / "b.zarr")).read_cohort().ids == bare.ids

    def test_a_cohort_of_other_rows_is_refused(self, known, result):
        with pytest.raises(InputError, match=r"^Counterfactuals.cohort: expected 6 rows, got 2"):
            result.replace(cohort=known[:2])

    def test_the_short_form_says_what_came_out(self, known, result):
        assert repr(result).startswith("<Counterfactuals: 6 rows, x, x_cf, edited, read of (1, 8, 8), ")
        assert "depth 'typical'" in repr(result)
        assert sum(int(n) for n in re.findall(r"(\d+) (?:flipped|already|budget|unstable|refused)", repr(result))) == 6
        assert "classes ['CN', 'AD']" in repr(known)
        assert max(len(repr(v)) for v in (result, known, result[:0])) < 300
