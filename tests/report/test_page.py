"""The page holds every row, failures first, needs nothing but itself, and escapes what it is given."""

import base64
import hashlib
import re
import shutil
import subprocess
import time
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from cfx.atlas import Atlas, write_atlas
from cfx.core.errors import CfxError, InputError
from cfx.counterfactual.reading import Reading
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.display.catalogue import Metric, meaning, metric, register
from cfx.report import page as module
from cfx.report import panel, write_report
from cfx.report.cards import failures_first, slices
from cfx.report.page import LINES, SLICES
from tests.report.hand_made import divided, make

VOID = {"meta", "img", "br", "path", "hr", "input"}


class Page(HTMLParser):
    """Tags with attributes, visible text; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def values(self, tag: str, attribute: str) -> list[str]:
        return [found[attribute] or "" for name, found in self.tags if name == tag and attribute in found]


def words(found: Page) -> str:
    """What is to be read on a page."""
    return " ".join("".join(found.text).split())


def page(path: Path, result: Counterfactuals | Atlas[Counterfactuals], **more: object) -> Page:
    return Page(write_report(path / "report.html", result, **more).read_text("utf-8"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("space", "channels"), [((12, 10), 1), ((12, 10), 3), ((6, 8, 7), 1), ((8, 8), 2)])
def test_every_row_with_its_verdict(tmp_path: Path, space: tuple[int, ...], channels: int) -> None:
    result, cohort = make(10, space, channels)
    text = write_report(tmp_path / "r.html", result, cohort=cohort, max_rows=4).read_text("utf-8")
    table = text[text.index("Every row") :]
    name = r'<th scope="row">(?:<a href="#row-\d+">)?(sub-\d+)(?:</a>)?</th>'
    rows = re.findall(name + r'<td><span class="badge (\w+)">(\w+)</span>', table)
    assert {name: verdict for name, verdict, _ in rows} == dict(zip(cohort.ids, result.verdicts, strict=True))
    assert all(a == b for _, a, b in rows)
    found = Page(text)
    assert found.values("article", "aria-label") == ["Row sub-4", "Row sub-9", "Row sub-3", "Row sub-8"]
    assert "6 of 10 rows have no card" in text
    assert len(found.values("img", "src")) == 1 + 4 * 5 + (4 * 3 if len(space) == 3 else 0)


def test_nothing_comes_from_outside(tmp_path: Path) -> None:
    result, cohort = make()
    path = write_report(tmp_path / "r.html", result, cohort=cohort, metrics={"validity": 0.5}, notes=["a note"])
    found = Page(path.read_text("utf-8"))
    assert {"link", "iframe", "object", "form", "base"}.isdisjoint(tag for tag, _ in found.tags)
    assert found.values("script", "src") == []
    assert not any(name.startswith("on") or name == "style" for _, attributes in found.tags for name in attributes)
    assert all(source.startswith("data:image/png;base64,") for source in found.values("img", "src"))
    assert all(found.values("img", "alt"))
    assert re.search(r"https?://|url\(|@import", path.read_text("utf-8")) is None
    assert all(target.startswith("#") for target in found.values("a", "href"))


def test_what_is_given_is_escaped(tmp_path: Path) -> None:
    result, cohort = make(2)
    evil = '<b onclick="x">&'
    cohort = replace(cohort, ids=(evil, "plain"), classes=["<i>", "ill"])
    found = page(tmp_path, result, cohort=cohort, title="<u>", notes=["<s>"], metrics={"<k>": "<q>"})
    assert {"i", "u", "s", "k", "q"}.isdisjoint(tag for tag, _ in found.tags)
    assert not any("onclick" in attributes for _, attributes in found.tags)
    said = "".join(found.text)
    assert all(word in said for word in (evil, "<i>", "<u>", "<s>", "<k>", "<q>"))


def test_the_verdict_counts_every_row_and_stands_first(tmp_path: Path) -> None:
    result, cohort = make()
    found = page(tmp_path, result, cohort=cohort)
    said = words(found)
    first = said.index("2 of 10 images were changed so that the classifier decides otherwise.")
    assert first < said.index("images flipped") < said.index("sub-0") < said.index("Verdicts: what each means")
    assert "the oracle, agrees with 1 of these 2" in said
    assert "Truth is shown" in said
    assert all(text in said for text in (verdict.meaning for verdict in Verdict))
    assert len(re.findall("<li><b>", (tmp_path / "report.html").read_text("utf-8"))) == 4
    assert "No true counterfactual is known" in words(page(tmp_path, result))


def test_metrics_table_folds_intervals_and_explains(tmp_path: Path) -> None:
    result, _ = make(2)
    register(Metric("mine", "mine", "My own."))
    metrics = {"validity": 0.9583, "validity_low": 0.86, "validity_high": 0.99, "lpips": float("nan"), "mine": 3}
    text = write_report(tmp_path / "r.html", result, metrics=metrics).read_text("utf-8")
    rows = dict(re.findall(r'<tr><th scope="row">[^<]*<br><code>(.*?)</code></th>(.*?)</tr>', text))
    cells = {name: re.findall(r"<td.*?>(.*?)</td>", row) for name, row in rows.items()}
    assert cells["validity"] == ["0.9583", "0.86 to 0.99", metric("validity").meaning]
    assert cells["lpips"] == ["-", "", metric("lpips").meaning]
    assert cells["mine"] == ["3", "", "My own."]
    assert f'<th scope="row">{metric("oracle_validity").heading}<br><code>oracle_validity' not in text
    said = f"{metric('validity').meaning} At depth boundary."
    assert meaning("validity_boundary", ["boundary"]) == meaning("boundary_validity", ["boundary"]) == said


def test_all_rows_alike_and_no_change_at_all(tmp_path: Path) -> None:
    """Nothing was edited and nothing is finite: the page still says so."""
    result, _ = make(3)
    nan = torch.full_like(result.probs_after, float("nan"))
    result = replace(
        result,
        x_cf=result.x,
        edited=result.edited & False,
        verdict=torch.full((3,), 4),
        probs_before=nan,
        probs_after=nan,
    )
    found = page(tmp_path, result)
    assert len(found.values("article", "aria-label")) == 3
    assert found.values("path", "d") == []


def test_misuse_is_named(tmp_path: Path) -> None:
    result, cohort = make(3)
    with pytest.raises(InputError, match="result: expected at least one row"):
        write_report(tmp_path / "r.html", result[:0])
    with pytest.raises(InputError, match="cohort: expected images"):
        write_report(tmp_path / "r.html", result, cohort=cohort[:2])
    with pytest.raises(InputError, match="rows: expected at least one"):
        panel(result, cohort, [], tmp_path / "p.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(CfxError, match=r"could not write"):
        write_report(tmp_path / "file" / "r.html", result)


@pytest.mark.parametrize("space", [(12, 10), (6, 5, 4)])
def test_the_page_of_an_atlas_is_that_of_its_result(tmp_path: Path, space: tuple[int, ...]) -> None:
    result, cohort = make(7, space)
    atlas = write_atlas(tmp_path / "a.zarr", result, cohort)
    texts = [
        write_report(tmp_path / "r.html", shown, cohort=known, max_rows=4).read_text("utf-8")
        for shown, known in ((result, cohort), (atlas, None))
    ]
    assert texts[0].partition("What this is of")[0] == texts[1].partition("What this is of")[0]


def test_a_page_of_many_rows_lists_the_first_failures(tmp_path: Path) -> None:
    result, _ = make(10)
    many = type(result).cat([result] * 250).replace(row=torch.arange(2500))
    text = write_report(tmp_path / "r.html", many, max_rows=0).read_text("utf-8")
    assert f"{LINES:,} of 2,500 rows, failures first (the atlas has all)" in text
    assert "2,500 of 2,500 rows have no card on this page" in text
    assert f"The table at the end lists {LINES:,}" in text
    assert text.count('<td class="num">100</td>') <= LINES
    assert len(re.findall("<tr data-verdict", text)) == LINES


def test_time_is_linear_in_the_rows_and_the_size_bounded(tmp_path: Path) -> None:
    result, cohort = make(10)
    seconds, sizes = [], []
    for n in (2000, 20000):
        times = n // 10
        many = type(result).cat([result] * times).replace(row=torch.arange(n))
        names = replace(type(cohort).cat([cohort] * times), ids=tuple(f"sub-{i}" for i in range(n)))
        start = time.perf_counter()
        write_report(tmp_path / "r.html", many, cohort=names)
        seconds.append(time.perf_counter() - start)
        sizes.append((tmp_path / "r.html").stat().st_size)
    assert sizes[1] < 1.1 * sizes[0] < 3e6
    assert seconds[1] < 12 * seconds[0]


def test_pictures_are_bounded_and_what_has_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, cohort = make(10, (40, 40))
    monkeypatch.setattr(module, "BUDGET", 30_000)
    found = page(tmp_path, result, cohort=cohort)
    cards = len(found.values("article", "aria-label"))
    assert 1 < cards < 10
    assert f"{10 - cards} of 10 rows have no card on this page" in words(found)
    assert sum(map(len, found.values("img", "src"))) < 30_000 + 2000
    monkeypatch.setattr(module, "BUDGET", 1)
    assert len(page(tmp_path, result, cohort=cohort).values("article", "aria-label")) == 1


def test_volumes_have_slices_as_far_as_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, cohort = make(5, (4, 5, 40))
    found = page(tmp_path, result, cohort=cohort)
    (places,) = {tuple(map(int, text.split())) for text in found.values("div", "data-places")}
    assert (len(places), places[0], places[-1]) == (SLICES, 0, 39)
    assert len(found.values("div", "data-places")) == 5
    middle = [slices(result, i)[2] for i in failures_first(result)]
    starts = [places[int(text)] for text in found.values("div", "data-start")]
    assert all(abs(a - b) <= 1 for a, b in zip(starts, middle, strict=True))
    assert "can be stepped through" not in words(found)
    sizes = [len(a["src"] or "") for tag, a in found.tags if tag == "img" and a["height"] == str(5 * SLICES)]
    _, *every = map(len, found.values("img", "src"))
    every += map(len, found.values("path", "d"))  # lines over pictures count too
    monkeypatch.setattr(module, "BUDGET", sum(every) - sum(sizes) // 2)
    fewer = page(tmp_path, result, cohort=cohort)
    sliced = len(fewer.values("div", "data-places"))
    assert 0 < sliced < 5 == len(fewer.values("article", "aria-label"))
    assert f"{sliced} of the 5 pictured can be stepped through" in words(fewer)


def test_where_the_right_is_is_claimed_for_volumes_with_an_affine_alone(tmp_path: Path) -> None:
    result, cohort = make(2, (4, 5, 6))
    placed = replace(cohort, affine=torch.eye(4).expand(2, 4, 4).clone())
    assert "the subject's right on the right" in words(page(tmp_path, result, cohort=placed))
    assert "the subject's right on the right" not in words(page(tmp_path, result, cohort=cohort))


def test_an_atlas_half_filled_says_what_is_missing(tmp_path: Path) -> None:
    result, cohort = make(7)
    atlas = Atlas.create(tmp_path / "a.zarr", result, rows=result.row.tolist(), cohort=cohort, ids=cohort.ids)
    with pytest.raises(InputError, match="got none of 7 that are to come"):
        write_report(tmp_path / "r.html", atlas)
    atlas.write(result[:5], cohort[:5])
    said = words(Page(write_report(tmp_path / "r.html", atlas).read_text("utf-8")))
    assert "This atlas is not complete. 2 of 7 rows are still missing" in said
    assert "1 of 5 images was changed" in said
    atlas.write(result[5:], cohort[5:])
    whole = write_report(tmp_path / "r.html", atlas).read_text("utf-8")
    assert "not complete" not in whole
    assert write_report(tmp_path / "r.html", str(tmp_path / "a.zarr")).read_text("utf-8") == whole


def test_what_the_run_warned_of_is_on_its_page(tmp_path: Path) -> None:
    result, cohort = make(3)
    atlas = write_atlas(tmp_path / "a.zarr", result, cohort)
    assert "before believing" not in write_report(tmp_path / "r.html", atlas).read_text("utf-8")
    atlas.note(warnings=["classifier: <b>near chance</b>", "images in [0, 1]"])
    text = write_report(tmp_path / "r.html", atlas).read_text("utf-8")
    assert "<li>classifier: &lt;b&gt;near chance&lt;/b&gt;</li>" in text
    assert "Look at this before believing the result: classifier:" in words(Page(text))


def test_what_is_read_is_drawn_said_listed_and_can_be_filtered(tmp_path: Path) -> None:
    result, cohort = divided()
    found = page(tmp_path, result, cohort=cohort)
    said = words(found)
    assert "In 2 of 6 rows the classifier reads only part of the change" in said
    assert "The classifier reads 19 % of the change. That part alone brings 93 %" in said
    assert "Consent 0.31: how far it goes along" in said
    assert all(word.meaning in said for word in (Reading.CARRIED, Reading.REDUNDANT, Reading.WHOLE))
    assert {"carried", "redundant", "whole"} <= set(found.values("option", "value"))
    cards = [a for tag, a in found.tags if tag == "article"]
    assert sum(card["data-reading"] == "carried" for card in cards) == 2
    assert sum(a.get("data-reading") == "carried" for tag, a in found.tags if tag == "tr") == 2
    assert "carried, 19 %" in said
    drawn = found.values("path", "class")
    assert drawn.count("read") == drawn.count("rest") == 6 + 1  # the legend has one of each
    bare = words(page(tmp_path, make()[0]))
    assert "hatching" not in bare
    assert "Reading" not in bare
    assert "not measured" in bare


def test_a_run_that_is_not_judged_opens_with_that_and_explains_nothing(tmp_path: Path) -> None:
    result, cohort = divided()
    reasons = {"competence": "classifier: near <b>chance</b>", "generator": "generator: worse than its card"}
    stood = result.replace(standing={"reasons": reasons, "remarks": {"consent": "it hardly <i>follows</i>"}})
    found = page(tmp_path, stood, cohort=cohort, metrics={"validity": 0.5})
    said = words(found)
    assert said.index("Not judged") < said.index("near <b>chance</b>") < said.index("generator: worse than its card")
    assert said.index("generator: worse than its card") < said.index("How good the classifier is")
    assert said.index("How good the classifier is") < said.index("images were changed so that")
    assert re.search("(The|rows the) classifier reads", said) is None
    assert "<code>why</code>" not in (tmp_path / "report.html").read_text("utf-8")  # words are no figures
    assert "it hardly <i>follows</i>" in said
    assert "What the generator changed" in said
    assert {"carried", "redundant", "whole"}.isdisjoint(found.values("option", "value"))
    assert {"read", "rest"}.isdisjoint(found.values("path", "class"))
    anyway = words(page(tmp_path, stood.replace(standing=stood.standing | {"anyway": True}), cohort=cohort))
    assert "Not judged" not in anyway
    assert "generator: worse than its card" in anyway  # judged in spite of it, and that is said
    assert "In 2 of 6 rows the classifier reads" in anyway
    plain = words(page(tmp_path, result, cohort=cohort, metrics={"judged": False, "why": "as the run says"}))
    assert "Not judged as the run says" in plain


def test_an_atlas_knows_by_itself_that_it_is_not_judged(tmp_path: Path) -> None:
    result, cohort = divided(3)
    atlas = write_atlas(
        tmp_path / "a.zarr", result.replace(standing={"reasons": {"competence": "near chance"}}), cohort
    )
    assert "Not judged near chance Nothing on this page explains" in words(page(tmp_path, atlas))


def test_what_is_known_of_the_networks_stands_first_whoever_says_it(tmp_path: Path) -> None:
    result, _ = make()
    figures = {"competence": 0.912, "competence_low": 0.88, "competence_high": 0.998, "auc": 0.9991, "ece": 0.0321}
    for shown in (
        page(tmp_path, result.replace(standing={"figures": figures})),
        page(tmp_path, result, metrics=figures),
    ):
        said = words(shown)
        row = "reference images0.91 [0.88, >0.99]>0.990.032"
        assert said.index("How good the classifier is") < said.index(row) < said.index("images were changed")
        assert "Guessing has a balanced accuracy of 0.5 " in said
        assert "could not be told" not in said
    assert "How good the classifier is. That could not be told" in words(page(tmp_path, result))


def test_labels_and_mistakes_are_shown_where_they_are_known(tmp_path: Path) -> None:
    result, cohort = make(10)
    found = page(tmp_path, result, cohort=replace(cohort, y=torch.ones(10).long()))
    assert sum("data-mistaken" in attributes for tag, attributes in found.tags if tag == "article") == 4
    assert "mistaken" in found.values("option", "value")
    assert "mistaken" not in page(tmp_path, result, cohort=cohort).values("option", "value")


def test_one_row_without_an_oracle(tmp_path: Path) -> None:
    result, _ = make(1)
    found = page(tmp_path, result.replace(oracle_probs_before=None, oracle_probs_after=None))
    said = words(found)
    assert "The image was changed so that the classifier decides otherwise." in said
    assert "not known: no independent network was asked" in said
    assert "oracle disagrees" not in said
    assert found.values("option", "value") == ["", "flipped"]


def test_the_page_can_be_used_by_ear_and_keyboard(tmp_path: Path) -> None:
    result, cohort = make(10, (5, 6, 7))
    found = page(tmp_path, result, cohort=cohort)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {target[1:] for target in found.values("a", "href")} <= set(ids)
    assert len(found.values("img", "alt")) == len(found.values("img", "src"))
    assert all(scope in ("row", "col") for scope in found.values("th", "scope"))
    assert len(found.values("th", "scope")) == sum(tag == "th" for tag, _ in found.tags)
    assert found.values("html", "lang") == ["en"]
    headings = [int(tag[1]) for tag, _ in found.tags if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(headings))


def test_without_a_script_every_row_is_there_and_no_control_that_does_nothing(tmp_path: Path) -> None:
    result, cohort = make(10)
    found = page(tmp_path, result, cohort=cohort)
    hidden = [attributes.get("role") for _, attributes in found.tags if "hidden" in attributes]
    assert hidden == ["toolbar"]
    assert len(found.values("article", "id")) == 10


def test_the_script_is_the_one_that_the_policy_allows(tmp_path: Path) -> None:
    found = page(tmp_path, make(1)[0])
    text = (tmp_path / "report.html").read_text("utf-8")
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    (policy,) = [text for text in found.values("meta", "content") if "script-src" in text]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_script_is_javascript(root: Path) -> None:
    done = subprocess.run(
        ["node", "--check", root / "cfx/report/report.js"], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_ids_of_any_length_and_kind_are_shown_whole(tmp_path: Path) -> None:
    result, cohort = make(3)
    names = ("x" * 300, "name with 'quotes' \"and\" ümlaut", "</article>")
    found = page(tmp_path, result, cohort=replace(cohort, ids=names))
    assert [f"Row {name}" for name in names] == sorted(
        found.values("article", "aria-label"), key=lambda t: names.index(t[4:])
    )


def test_what_a_gate_says_is_on_the_card_also_of_an_atlas(tmp_path: Path) -> None:
    result, cohort = make(2)
    p = [torch.tensor(v, dtype=torch.float64) for v in ([0.014, torch.nan], [0.61, 0.5])]
    gated = result.replace(gate_p=p[0], gate_p_before=p[1])
    gated.of_cohort(cohort).save(tmp_path / "a.zarr")
    for found in (
        page(tmp_path, gated, cohort=cohort),
        Page(write_report(tmp_path / "b.html", tmp_path / "a.zarr").read_text("utf-8")),
    ):
        said = words(found)
        assert "gate p0.61 → 0.014" in said
        assert said.count("gate p") == 2
        assert "1 of 1 edited images; before the edit it was 0 of them." in said
        assert "out of distribution" in said
    assert "gate" not in words(page(tmp_path, result, cohort=cohort))
