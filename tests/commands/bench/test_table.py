"""The page of a bench: every number of its rows stands in its column, and what is absent is said to be."""

import pytest

from cfx.commands.bench.table import COSTS, SHOWN, heading, markdown


def row(method, depth="typical", **more):
    return {"method": method, "depth": depth, "n": 12, "comparisons": {}, "directions": {}} | more


def page(*rows, **more):
    return markdown("Bench", rows, "cfx bench x", ["1 chip"], **more)


def tables(text):
    """Every table as a list of rows by column."""
    found, lines = [], text.splitlines()
    for i, line in enumerate(lines):
        if line.startswith("| ---"):
            head = cells(lines[i - 1])
            assert len(head) == len(cells(line))
            body = lines[i + 1 : next(j for j in range(i, len(lines)) if not lines[j].startswith("|"))]
            found.append([dict(zip(head, cells(text), strict=True)) for text in body])
    return found


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_number_stands_below_its_heading():
    first = row("minimal", validity=0.5, validity_low=0.25, validity_high=0.751, l1=0.0123, l1_low=0.0, l1_high=0.02,
                nfe_unet_forward=1234.4, seconds_per_image=0.12345, peak_memory_mb=None, start_sigma=0.774)  # fmt: skip
    second = row("additive", validity=1.0, lpips=None)
    (found,) = tables(page(first, second))
    assert found[0] == {
        "method": "minimal", "n": "12", heading("start_sigma"): "0.774", heading("validity"): "0.500 [0.250, 0.751]",
        heading("l1"): "0.012 [0.000, 0.02]", heading("lpips"): "-",
        **{heading(cost): "-" for cost in COSTS}, heading("nfe_unet_forward"): "1234",
        heading("seconds_per_image"): "0.123",
    }  # fmt: skip
    assert found[1][heading("validity")] == "1.000"
    assert found[1][heading("l1")] == "-"


def test_columns_are_named_apart():
    names = [heading(name) for name in (*SHOWN, *COSTS)]
    assert len(set(names)) == len(names)


def test_depths_have_sections_in_the_order_of_their_rows():
    text = page(row("a", "typical", l1=1.0), row("a", "boundary", l1=2.0), row("b", "typical", l1=3.0))
    assert text.index("## Depth typical") < text.index("## Depth boundary")
    typical, boundary = tables(text)
    assert [r[heading("l1")] for r in typical] == ["1.000", "3.000"]
    assert [r[heading("l1")] for r in boundary] == ["2.000"]


def test_a_method_that_failed_is_named_with_its_reason_and_in_no_table():
    text = page(row("a", validity=1.0), row("b", error="no generator", n=0))
    assert "- `b` could not run: no generator" in text
    assert [r["method"] for r in tables(text)[0]] == ["a"]


def test_comparisons_say_difference_interval_and_verdict():
    found = {"n": 9, "l1": {"difference": -0.2, "low": -0.31, "high": -0.1, "verdict": "better"}}
    text = page(row("minimal", l1=0.1), row("other", l1=0.3, comparisons={"minimal": found}))
    assert "`minimal` minus each other method" in text
    assert tables(text)[1] == [{"against": "other", "n": "9", heading("l1"): "-0.200 [-0.310, -0.100] better"}]


def test_directions_have_a_line_each():
    towards = {"healthy": {"n": 5, "l1": 0.25, "l1_low": 0.2, "l1_high": 0.3}, "ill": {"n": 7}}
    found = tables(page(row("minimal", l1=0.1, directions=towards)))[1]
    assert [(r["towards"], r["n"], r[heading("l1")]) for r in found] == [
        ("healthy", "5", "0.250 [0.200, 0.300]"),
        ("ill", "7", "-"),
    ]


@pytest.mark.parametrize("reversible", [True, False])
def test_laws_are_explained_where_they_were_measured(reversible):
    text = page(row("a", l1=0.1, **({"reversibility": 0.1} if reversible else {})))
    assert ("Reversibility:" in text) is reversible
    assert "Square brackets are 95 % bootstrap intervals" in text


def test_notes_come_first_and_how_it_was_run_is_said():
    text = page(row("a", l1=0.1), notes=["A note."])
    assert text.startswith("# Bench\n\nA note.\n\nHardware: 1 chip.\n\nCommand: `cfx bench x`\n")
    assert text.endswith("\n")
