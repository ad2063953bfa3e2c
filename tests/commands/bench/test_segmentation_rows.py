"""Rows of a bench of mask samplers: means of the metrics, intervals over subjects, pairs on the images of both."""

import pytest
import torch

from cfx.commands.bench.segmentation_rows import COMPARED, Answer, Readers, Truth, columns, table_rows
from cfx.core.random import uniform
from cfx.core.statistics import bootstrap_interval
from cfx.display.catalogue import metric
from cfx.segmentation.metrics import evaluate, ged

N = 24
SUBJECT = torch.arange(N) // 3
P = torch.linspace(0.1, 0.9, N)


def crowd(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    """Masks of eight voxels: empty with probability 1 - P, else the first few, of three sizes as likely."""
    u = uniform((count, 2), seed=seed, row=torch.arange(N), stream=0)
    size = torch.where(u[..., 0] < P[:, None] + shift, 2 + (3 * u[..., 1]).long(), 0)
    return (torch.arange(8) < size[..., None]).unflatten(2, (2, 4)).to(torch.uint8)


READERS = Readers(crowd(4, 0), SUBJECT, 2)
TRUTH = Truth(crowd(400, 1), 1 - P.double())
TRUE, WRONG = Answer(crowd(50, 2), (4, 16, 50), {"train_steps": 7}), Answer(crowd(16, 3, 0.4)[:12], (4, 16))


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return table_rows({"ours": TRUE, "wrong": WRONG, "none": "it failed"}, READERS, TRUTH)


def test_figures_are_means_of_the_metrics_with_their_number_of_samples(rows):
    for n in (4, 16, 50):
        scores = evaluate(TRUE.masks[:, :n], READERS.masks, 2)
        for name in ("ged", "ci", "d_max", "hm_iou"):
            assert rows[0][f"{name}_{n}"] == pytest.approx(float(getattr(scores, name).mean()))
    assert rows[0]["ged_debiased"] == pytest.approx(float(scores.ged_debiased.mean()))  # of all fifty
    assert rows[0]["train_steps"] == 7
    assert "ged_50" not in rows[1]
    assert [(row["method"], row["n"]) for row in rows] == [("ours", N), ("wrong", 12), ("none", 0)]
    assert rows[2] == {"method": "none", "n": 0, "error": "it failed"}


def test_intervals_are_of_subjects(rows):
    values = columns(TRUE, READERS)["ged_4"]
    assert (rows[0]["ged_4_low"], rows[0]["ged_4_high"]) == bootstrap_interval(values, groups=SUBJECT)
    alone = table_rows({"ours": TRUE}, Readers(READERS.masks, None, 2))[0]
    assert (alone["ged_4_low"], alone["ged_4_high"]) == bootstrap_interval(values)
    for name in ("ged_debiased", "diversity", "diversity_ratio", "truth_ratio_4"):
        assert rows[0][f"{name}_low"] <= rows[0][name] <= rows[0][f"{name}_high"]


def test_others_are_compared_on_the_images_of_both(rows):
    ours, other = columns(TRUE, READERS), columns(WRONG, READERS)
    difference = float((other["ged_debiased"] - ours["ged_debiased"][:12]).mean())
    assert rows[1]["ged_debiased_vs_ours"] == pytest.approx(difference)
    assert rows[1]["n_vs_ours"] == 12
    assert rows[1]["ged_debiased_vs_ours_low"] <= difference <= rows[1]["ged_debiased_vs_ours_high"]
    assert not any(key.endswith("_vs_ours") for key in rows[0])
    assert {f"{name}_vs_ours" for name in COMPARED} <= rows[1].keys()


def test_the_true_distribution_is_as_far_as_equally_many_true_masks(rows):
    own, wrong = rows[0], rows[1]
    for n in (4, 16, 50):
        assert own[f"truth_ratio_{n}"] == pytest.approx(1, abs=0.5)
        expected = float(ged(TRUE.masks[:, :n], TRUTH.masks, 2, reader_form="u").mean())
        assert own[f"truth_ged_{n}"] == pytest.approx(expected)
    assert abs(own["truth_ged"]) < 0.01
    assert own["empty_ece"] < 0.1
    assert wrong["truth_ged"] > 0.1
    assert wrong["truth_ratio_16"] > 3
    assert wrong["empty_ece"] > 0.2


def test_chosen_samples_are_nearer_than_the_first_and_only_of_samplers(rows):
    assert rows[0]["representative_ged_4"] < rows[0]["ged_4"]
    assert rows[0]["representative_ratio"] == pytest.approx(rows[0]["representative_ged_4"] / rows[0]["ged_4"])
    assert "representative_ged_4" not in rows[1]  # sixteen are no pool
    control = table_rows({"ours": Answer(TRUE.masks, (4, 50), control=True)}, READERS)[0]
    assert control["control"] is True
    assert "representative_ged_4" not in control


def test_without_a_truth_empty_masks_are_held_against_the_readers():
    row = table_rows({"ours": TRUE}, READERS)[0]
    assert not any(key.startswith("truth") for key in row)
    assert 0 <= row["empty_ece"] < 0.3


def test_readers_who_never_differ_have_no_ratio():
    same = Readers(crowd(1, 0).repeat(1, 4, 1, 1), SUBJECT, 2)
    row = table_rows({"ours": TRUE}, same)[0]
    assert row["reader_diversity"] == 0
    assert "diversity_ratio" not in row


def test_every_figure_has_its_words(rows):
    plain = {"method", "n", "control", "n_vs_ours", "truth_diversity"}
    names = {key.removesuffix("_low").removesuffix("_high") for row in rows[:2] for key in row} - plain
    assert all(metric(name).heading for name in names)
