"""The page of an audit: it says the verdict that was found, its numbers, its plan, and nothing it was not given."""

import re
from dataclasses import replace
from html import escape

import pytest
import torch

from cfx.confounder.audit import Audit
from cfx.confounder.intervention import NEEDED
from cfx.confounder.probes.probe import ladder
from cfx.confounder.reliance import Outcome
from cfx.core.statistics import Estimate
from cfx.report.audit import figures
from cfx.report.audit.page import MEANING, audit_page
from tests.report.audit.hand_made import audited


@pytest.fixture(scope="module")
def found() -> Audit:
    return audited()


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn and not turned into pictures, which takes most of the time of a page."""
    monkeypatch.setattr(figures, "uri", lambda figure: "data:image/png;base64,AAAA")


def judged(found: Audit, verdict: Outcome, role: str = "confounder") -> Audit:
    """The same audit with another outcome."""
    plan = found.reliance.plan.model_copy(update={"role": role})
    return replace(found, reliance=replace(found.reliance, verdict=verdict, plan=plan))


def headings(page: str) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", page)


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    part = page[page.index(f"<h2>{heading}</h2>") :].partition("</h2>")[2].partition("<h2>")[0]
    rows = re.findall("<tr>(.*?)</tr>", part.partition("<tbody>")[2], re.S)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in rows]


@pytest.mark.parametrize(
    ("verdict", "role", "kind"),
    [
        (Outcome.RELIES, "confounder", "relies"),
        (Outcome.RELIES, "mediator", "mediator"),
        (Outcome.RELIES, "collider", "relies"),
        (Outcome.UNJUDGED, "confounder", "not-judged"),
        (Outcome.NONE, "confounder", "no-reliance"),
        (Outcome.INCONCLUSIVE, "confounder", "inconclusive"),
        (Outcome.ARTEFACT, "mediator", "artefact"),
    ],
)
def test_the_verdict_leads_in_the_colour_of_its_kind(found: Audit, verdict: Outcome, role: str, kind: str) -> None:
    other = judged(found, verdict, role)
    page = audit_page(other, "Audit")
    box = f'<p class="box verdict {kind}"><strong>{str(verdict).capitalize()}.</strong> '
    assert box + escape(other.reliance.sentence) + "</p>" in page
    assert f".verdict.{kind}" in page  # a colour that the style has


def test_competence_comes_before_the_verdict_and_without_it_no_figure_speaks(found: Audit) -> None:
    page = audit_page(found, "Audit")
    assert 0 < page.index(f"decides the untouched images with {found.reliance.competence}") < page.index("box verdict")
    assert f"AUC {found.reliance.competence.auc:.2f}, calibration error" in page
    assert '<ul class="tiles">' in page
    assert "No figure below" not in page
    other = audit_page(judged(found, Outcome.UNJUDGED), "Audit")
    assert other.index("box verdict not-judged") < other.index("No figure below says") < other.index('"tiles muted"')


def test_every_arm_has_its_line(found: Audit) -> None:
    r = found.reliance
    rows = table(audit_page(found, "Audit"), "The intervention")
    assert [row[0] for row in rows] == [name.replace("_", " ") for name in r.arms]
    assert [row[1] for row in rows] == [f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]" for e in r.arms.values()]
    assert [row[2] for row in rows] == [f"{r.accuracy[name]:.3f}" for name in r.arms]
    assert set(NEEDED) <= MEANING.keys()


def test_the_plan_is_on_the_page_with_its_digest(found: Audit) -> None:
    page = audit_page(found, "Audit")
    plan = dict(table(page, "The plan"))
    assert plan == {k: escape(str(v)) for k, v in found.reliance.plan.model_dump().items()}
    assert found.plan_sha256 in page


def test_the_exact_intervention_stands_beside_the_estimated_one(found: Audit) -> None:
    rows = table(audit_page(found, "Audit"), "Against the truth")
    assert [row[1:] for row in rows] == [rows[0][1:]] * 2  # here they are the same intervention
    assert rows[0][2] == "relies"


def test_what_was_not_asked_is_not_on_the_page(found: Audit) -> None:
    whole = headings(audit_page(found, "Audit"))
    bare = headings(audit_page(replace(found, exact=None, witnesses=None), "Audit"))
    assert set(whole) - set(bare) == {
        *("Against the truth", "All evidence", "The data", "Ways of deciding"),
        "What predictions go with (observational)",
    }
    assert bare == [h for h in whole if h in bare]


def test_one_network_is_not_a_way_of_training(found: Audit) -> None:
    assert "The verdict is about this way of training" in audit_page(found, "Audit")
    one = audit_page(audited(k=1), "Audit")
    assert "The verdict is about this one network" in one
    assert "40 images, 1 networks" in one


def test_p_values_are_never_zero(found: Audit) -> None:
    small = replace(found, reliance=replace(found.reliance, p_mcnemar=9e-5, p_equivalence=0.0312))
    page = audit_page(small, "Audit")
    assert "exact McNemar p &lt; 0.0001" in page
    assert "<b>0.031</b><span>p, equivalence</span>" in page


def test_what_is_given_is_escaped_and_nothing_comes_from_outside() -> None:
    page = audit_page(audited(confounder="<script>x</script>"), "<b>&")
    assert "<script" not in page
    assert "&lt;script&gt;x&lt;/script&gt;" in page
    assert "<title>&lt;b&gt;&amp;</title>" in page
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="(.*?)"', page))
    assert re.search(r"https?://|url\(|@import", page) is None


def test_tests_of_covariates_are_called_observational(found: Audit) -> None:
    assert found.witnesses is not None
    rows = table(audit_page(found, "Audit"), "What predictions go with (observational)")
    tests = found.witnesses.observational
    assert [row[0] for row in rows] == ["age", "pixel"] == list(tests)
    assert [row[1] for row in rows] == [f"{t.statistic:.3f}" for t in tests.values()]
    assert found.summary()["observational_age_r2"] == tests["age"].statistic


def test_masks_are_compared_in_the_usual_layout(found: Audit) -> None:
    assert found.witnesses is not None
    mask = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5
    y = torch.arange(40) % 2
    steps = ladder(mask, y, permutations=19, repeats=1)
    adjusted = {**found.witnesses.adjusted, "probe": 0.05}
    page = audit_page(replace(found, witnesses=replace(found.witnesses, ladder=steps, adjusted=adjusted)), "Audit")
    rows = table(page, "Told from the mask alone")
    assert [row[0] for row in rows] == [rung.name for rung in steps.rungs]
    for row, rung in zip(rows, steps.rungs, strict=True):
        assert row[1:3] == list(found.witnesses.balance.classes)
        assert row[3:6] == [f"{rung.scores[k].value:.2f}" for k in ("tnr", "tpr", "ba")]
        assert (row[6] == "✓") == (rung.scores["ba"].value > 0.5 and rung.p_value <= 0.05)
    assert "Told from the mask alone" not in headings(audit_page(found, "Audit"))


def test_what_a_gate_says_of_the_arms_is_there_where_one_was_asked(found: Audit) -> None:
    assert "Out of distribution" not in audit_page(found, "audit")
    arms = ("untouched", *found.reliance.arms)
    out = {name: Estimate(0.25 if name == "opposite" else 0.05, 0.125, 0.5) for name in arms}
    page = audit_page(replace(found, reliance=replace(found.reliance, out=out)), "audit")
    assert "25.0% [12.5%, 50.0%] of the images of opposite and 5.0% of same, 5.0% of the untouched ones." in page
    rows = {row[0]: row for row in table(page, "The intervention")}
    assert (rows["opposite"][3], rows["same"][3]) == ("25.0%", "5.0%")
    assert len(rows["same"]) == 5


def test_the_page_of_a_score_has_its_unit_and_no_sensitivity(found: Audit) -> None:
    assert found.witnesses is not None
    r = replace(found.reliance, scored=True)
    page = audit_page(
        replace(found, reliance=r, sensitivity=None, witnesses=replace(found.witnesses, clusters=None)), "a"
    )
    assert "no classes to know" in page
    assert "effect (standard deviations)" in page
    assert "logits" not in page
    assert "Ways of deciding" not in page
    assert "Ways of deciding" in audit_page(found, "audit")
