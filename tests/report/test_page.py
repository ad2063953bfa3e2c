"""The page holds every row, failures first, needs nothing but itself, and escapes what it is given."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from cfx.atlas import write_atlas
from cfx.core.errors import CfxError, InputError
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.display.catalogue import Metric, meaning, metric, register
from cfx.report import panel, write_report
from cfx.report.page import LINES
from tests.report.hand_made import make

VOID = {"meta", "img", "br", "path", "hr"}


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
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def values(self, tag: str, attribute: str) -> list[str]:
        return [found[attribute] or "" for name, found in self.tags if name == tag and attribute in found]


def page(path: Path, result: Counterfactuals, **more: object) -> Page:
    return Page(write_report(path / "report.html", result, **more).read_text("utf-8"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("space", "channels"), [((12, 10), 1), ((12, 10), 3), ((6, 8, 7), 1), ((8, 8), 2)])
def test_every_row_with_its_verdict(tmp_path: Path, space: tuple[int, ...], channels: int) -> None:
    result, cohort = make(10, space, channels)
    text = write_report(tmp_path / "r.html", result, cohort=cohort, max_rows=4).read_text("utf-8")
    table = text[text.index("Every row") :]
    rows = re.findall(r'<th scope="row">(sub-\d+)</th><td><span class="badge (\w+)">(\w+)</span>', table)
    assert {name: verdict for name, verdict, _ in rows} == dict(zip(cohort.ids, result.verdicts, strict=True))
    assert all(a == b for _, a, b in rows)
    found = Page(text)
    assert found.values("article", "aria-label") == ["Row sub-4", "Row sub-9", "Row sub-3", "Row sub-8"]
    assert "6 of 10 rows have no card" in text
    assert len(found.values("img", "src")) == 1 + 4 * 5


def test_nothing_comes_from_outside(tmp_path: Path) -> None:
    result, cohort = make()
    path = write_report(tmp_path / "r.html", result, cohort=cohort, metrics={"validity": 0.5}, notes=["a note"])
    found = Page(path.read_text("utf-8"))
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in found.tags)
    assert all(source.startswith("data:image/png;base64,") for source in found.values("img", "src"))
    assert all(found.values("img", "alt"))
    assert re.search(r"https?://|url\(|@import", path.read_text("utf-8")) is None
    assert found.values("a", "href") == []


def test_what_is_given_is_escaped(tmp_path: Path) -> None:
    result, cohort = make(2)
    evil = '<b onclick="x">&'
    cohort = replace(cohort, ids=(evil, "plain"), classes=["<i>", "ill"])
    found = page(tmp_path, result, cohort=cohort, title="<u>", notes=["<s>"], metrics={"<k>": "<q>"})
    assert {"i", "u", "s", "k", "q"}.isdisjoint(tag for tag, _ in found.tags)
    assert not any("onclick" in attributes for _, attributes in found.tags)
    said = "".join(found.text)
    assert all(word in said for word in (evil, "<i>", "<u>", "<s>", "<k>", "<q>"))


def test_headline_counts_every_row_in_the_shares(tmp_path: Path) -> None:
    result, _ = make()
    said = " ".join("".join(page(tmp_path, result).text).split())
    assert "60.0%validity6 of 10 rows reach the margin" in said.replace(" validity", "validity")
    assert "No true counterfactual is known" in said
    assert all(text in said for text in (verdict.meaning for verdict in Verdict))


def test_metrics_table_folds_intervals_and_explains(tmp_path: Path) -> None:
    result, _ = make(2)
    register(Metric("mine", "mine", "My own."))
    metrics = {"validity": 0.9583, "validity_low": 0.86, "validity_high": 0.99, "lpips": float("nan"), "mine": 3}
    text = write_report(tmp_path / "r.html", result, metrics=metrics).read_text("utf-8")
    rows = dict(re.findall(r'<tr><th scope="row"><code>(.*?)</code></th>(.*?)</tr>', text))
    cells = {name: re.findall(r"<td.*?>(.*?)</td>", row) for name, row in rows.items()}
    assert cells["validity"] == ["0.9583", "0.86 to 0.99", metric("validity").meaning]
    assert cells["lpips"] == ["-", "", metric("lpips").meaning]
    assert cells["mine"] == ["3", "", "My own."]
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
    assert texts[0] == texts[1]


def test_a_page_of_many_rows_lists_the_first_failures(tmp_path: Path) -> None:
    result, _ = make(10)
    many = type(result).cat([result] * 250).replace(row=torch.arange(2500))
    text = write_report(tmp_path / "r.html", many, max_rows=0).read_text("utf-8")
    assert f"{LINES} of 2500 rows, failures first (the atlas has all)" in text
    assert text.count("<tr><td") == LINES
