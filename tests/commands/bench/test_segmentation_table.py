"""The table of a bench of mask samplers says what results.json says, in the words of the catalogue."""

from cfx.commands.bench.segmentation_table import markdown


def row(name: str, **more) -> dict:
    figures = {"ged_4": 0.3, "ged_4_low": 0.25, "ged_4_high": 0.35, "empty_ece": 0.01}
    cost = {
        "nfe_unet_forward": 1.0,
        "samples_per_second": 1500.0,
        "seconds": 0.5,
        "parameters": 204350,
        "train_steps": 9,
    }
    return {"method": name, "n": 12, **figures, **cost, "train_steps": 9, **more}


def test_the_page_has_figures_costs_and_comparisons():
    other = row("other", n_vs_ours=12, ged_4_vs_ours=0.1, ged_4_vs_ours_low=0.05, ged_4_vs_ours_high=0.2)
    control = {"method": "nearest", "n": 12, "ged_4": 0.5}
    failed = {"method": "none", "n": 0, "error": "no network"}
    text = markdown("It", [row("ours"), other, failed, control], "cfx bench it.yaml", "a machine", ["A note."])
    assert text.startswith("# It\n\nA note.\n\nHardware: a machine.\n\nCommand: `cfx bench it.yaml`")
    assert "| ours | 12 | 0.300 [0.250, 0.350] | 0.010 |" in text
    assert "| nearest | 12 | 0.500 | - |" in text
    assert "| ours | 1 | 1,500 | 0.5 | 204,350 | 9 |" in text
    assert "| other | 12 | +0.100 [+0.050, +0.200] |" in text
    assert "- `none` could not run: no network" in text
    assert "known distribution" not in text
    assert "nearest |" not in text.partition("What they cost:")[2]


def test_a_known_distribution_has_a_table_of_its_own():
    text = markdown("It", [row("ours", truth_ged=0.002, truth_ratio_16=1.5)], "cfx bench it.yaml", "a machine")
    part = text.partition("Against the known distribution:")[2]
    assert "| ours | 12 | 0.0020 | 1.50 | 0.010 |" in part


def test_where_masks_were_drawn_is_said_and_not_where_the_table_was_made():
    text = markdown("It", [row("ours", hardware="one"), row("other", hardware="two")], "it", "here")
    assert "Hardware: one; two." in text
