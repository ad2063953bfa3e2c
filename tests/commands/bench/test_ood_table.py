"""The table of a bench of detectors: every figure where it belongs, in the words of the catalogue."""

from cfx.commands.bench.ood_table import markdown
from tests.commands.bench.test_ood_figure import row


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {start}")]


def test_the_page_has_methods_shifts_and_comparisons():
    ours, other = (row(m, spot="near", mild="tolerated") | {"n": 9} for m in ("ours", "other"))
    for r in (ours, other):
        r |= {"shift.spot.strength": "a spot", "shift.mild.strength": "a little"}
    other["comparisons"] = {
        "ours": {"n": 9, "auroc_near": {"difference": 0.1, "low": 0.05, "high": 0.2, "verdict": "higher"}}
    }
    failed = {"method": "none", "n": 0, "error": "no network", "comparisons": {}}
    text = markdown("It", [ours, other, failed], "cfx bench ood it.yaml", "a machine", ["A note."])
    assert text.startswith("# It\n\nA note.\n\nHardware: a machine.")
    assert "- `none` could not run: no network" in text
    assert lines(text, "ours")[0].startswith("| ours | 9 | 0.900 [0.800, 1.000] |")
    assert lines(text, "other")[-1] == "| other | 9 | +0.100 [+0.050, +0.200] higher |"
    assert lines(text, "spot") == ["| spot | a spot | 0.800 [0.70, 0.90] | 0.800 [0.70, 0.90] |"]
    assert lines(text, "mild") == ["| mild | a little | 0.100 | 0.100 |"]
    assert "## Far" not in text
    assert "near AUROC" in text
