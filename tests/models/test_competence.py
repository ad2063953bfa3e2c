"""Balanced accuracy with the interval of Price and Bonett, subjects counted once; poor and exchanged ones are named."""

import pytest
import torch
from torch import nn

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.models.competence import competence, competence_of, of_competence
from cfx.models.wrappers import Finding, Near
from tests.counterfactual.toys import Linear, Quadratic, class_means, cohort

MEANS = class_means((8, 8))
TOYS = cohort(MEANS, 8)


def answers(right, y, k=2):
    """Logits that are right where they should be."""
    return nn.functional.one_hot(torch.where(right, y, (y + 1) % k), k).float()


def test_competence_is_balanced_accuracy_with_the_interval_of_price_and_bonett():
    y = torch.tensor([0] * 30 + [1] * 10)
    right = torch.arange(40) % 10 != 0  # 27 of 30, 9 of 10
    found = competence_of(answers(right, y), y)
    p, s = torch.tensor([28 / 32, 10 / 12]), torch.tensor([32.0, 12.0])
    half = 1.959964 / 2 * float((p * (1 - p) / s).sum().sqrt())
    assert found.accuracy.value == pytest.approx(0.9)
    assert found.accuracy.low == pytest.approx(float(p.mean()) - half, abs=1e-5)
    assert found.accuracy.high == pytest.approx(min(1, float(p.mean()) + half), abs=1e-5)
    assert (found.shares, found.images, found.chance) == ({0: pytest.approx(0.9), 1: pytest.approx(0.9)}, 40, 0.5)
    assert found.shown
    assert of_competence(found, "reference") is None


def test_the_interval_covers():
    torch.manual_seed(0)
    y, inside = torch.arange(20) % 2, 0
    for _ in range(400):
        low, high = competence_of(answers(torch.rand(20) < 0.8, y), y).accuracy[1:]
        inside += low <= 0.8 <= high
    assert inside / 400 > 0.93


def test_images_of_one_subject_are_one_piece_of_evidence():
    y, right = torch.arange(40) % 2, torch.arange(40) % 5 > 0
    alone = competence_of(answers(right, y), y).accuracy
    grouped = competence_of(answers(right, y), y, torch.arange(40) // 10)
    assert grouped.subjects == 4
    assert grouped.accuracy.high - grouped.accuracy.low > 1.5 * (alone.high - alone.low)
    assert "40 images of 4 subjects" in str(grouped)


@pytest.mark.parametrize(
    ("share", "n", "words"),
    [
        (0.5, 40, "pixels it was trained on"), (0.55, 400, "pixels it was trained on"), (0.05, 40, "exchanged"),
        (0.5, 4, None),
        (0.75, 12, None), (0.9, 8, None), (0.0, 6, None), (0.65, 40, None), (0.0, 8, "exchanged"),
    ],
)  # fmt: skip
def test_a_classifier_near_or_below_chance_is_named_and_a_decent_one_is_not(share, n, words):
    y = torch.arange(n) % 2
    right = torch.arange(n) // 2 < share * n / 2
    message = of_competence(competence_of(answers(right, y), y), "reference")
    assert (message is None) == (words is None)
    assert words is None or (words in message and "balanced accuracy" in message)


def test_competence_of_networks_labels_and_what_cannot_be_told():
    found = competence(Linear((8, 8)), cohort(MEANS, 60))
    assert found.shown
    assert not found.poor
    assert competence(lambda x: -Linear((8, 8))(x), cohort(MEANS, 60)).exchanged
    assert competence(Linear((8, 8)), Cohort(TOYS.x)) is None
    assert competence(Linear((8, 8)), TOYS[[0, 2]]) is None  # one class
    assert competence(Near(Linear((8, 8)), 0.0, 1.0), TOYS) is None
    many = TOYS.replace(y=torch.stack([1 - TOYS.y, TOYS.y], 1).float())
    both = lambda x: torch.stack([-Linear((8, 8))(x), Linear((8, 8))(x)], 1)  # noqa: E731
    assert competence(Finding(both, 1), many).accuracy.value > 0.9
    assert competence(Quadratic(MEANS), many) is None
    unknown = TOYS.replace(y=TOYS.y.clone().fill_(-1))
    assert competence(Linear((8, 8)), unknown) is None
    with pytest.raises(InputError, match=r"y: expected classes in 0 \.\. 1 as the classifier has, got 2"):
        competence(Linear((8, 8)), TOYS.replace(y=TOYS.y + 1))


def test_ranking_and_calibration_stand_beside_the_accuracy():
    """0.9 is said of a class that is right in 8 of 10: that much too much; AUC counts pairs."""
    y = torch.arange(40) % 2
    said = torch.where(torch.arange(40) // 2 % 10 < 2, 1 - y, y)
    logits = torch.nn.functional.one_hot(said, 2) * torch.logit(torch.tensor(0.9))
    found = competence_of(logits, y)
    assert found.auc == pytest.approx(0.8)  # 0.64 of the pairs in order, 0.32 tied
    assert found.ece == pytest.approx(0.1, abs=1e-6)
    some = logits.index_fill(0, torch.tensor([0, 1]), torch.nan)
    assert competence_of(some, y).ece == pytest.approx(abs(0.9 - 32 / 38), abs=0.05)
    nothing = competence_of(torch.full((40, 2), torch.nan), y)
    assert nothing.auc != nothing.auc
    assert competence_of(torch.eye(3)[torch.arange(30) % 3], torch.arange(30) % 3).auc == 1


@pytest.mark.parametrize(
    ("right", "n", "clear"), [(1.0, 40, True), (0.9, 40, True), (0.74, 256, False), (0.5, 256, False)]
)
def test_random_features_are_never_clearly_competent(right, n, clear):
    y = torch.arange(n) % 2
    said = torch.where(torch.arange(n) // 2 < right * n / 2, y, 1 - y)
    assert competence_of(torch.eye(2)[said], y).clear == bool(clear)
