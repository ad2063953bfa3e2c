"""The two trivial edits: what they are, and that each fails where it should."""

from dataclasses import replace

import pytest
import torch

from cfx.core.errors import InputError
from cfx.counterfactual.metrics import evaluate, identity_edit, per_row, random_real
from cfx.counterfactual.result import Verdict
from cfx.models.judge import Judge
from tests.counterfactual.metrics.hand_made import result_of
from tests.counterfactual.toys import Linear, Quadratic, class_means, cohort

MEANS = class_means((8, 8))


@pytest.fixture(scope="module")
def run():
    """Twelve images of two classes sent to class 1 and 0 in threes, so some are there already; all moved somewhat."""
    images, judge, oracle = cohort(MEANS, 12).x, Judge(Quadratic(MEANS)), Judge(Linear((8, 8)))
    target = torch.arange(12) // 3 % 2
    edited = (images + 0.05).clamp(-1, 1)
    before = judge.margin(images, target)
    return replace(
        result_of(images, edited),
        target=target,
        probs_before=judge.probabilities(images),
        probs_after=judge.probabilities(edited),
        margin=torch.ones(12),
        verdict=torch.where(before >= 1, int(Verdict.ALREADY), int(Verdict.FLIPPED)),
        oracle_probs_before=oracle.probabilities(images),
        oracle_probs_after=oracle.probabilities(edited),
        smaller=torch.zeros(12),
    )


def test_the_identity_changes_nothing_and_costs_nothing(run) -> None:
    found = identity_edit(run)
    assert torch.equal(found.x_cf, run.x)
    assert not found.edited.any()
    margin = Judge(Quadratic(MEANS)).margin(run.x, run.target)
    torch.testing.assert_close(found.margin_after, margin, atol=1e-4, rtol=0)
    assert torch.equal(found.oracle_probs_after, run.oracle_probs_before)
    rows = per_row(found)
    for name in ("l1", "l2", "edited_share", "probability_change", "nfe_unet_forward", "nfe_classifier"):
        assert (rows[name] == 0).all()
    already = run.verdict == Verdict.ALREADY
    assert 0 < already.sum() < 12
    assert torch.equal(found.verdict == Verdict.ALREADY, already)
    assert torch.equal(rows["validity"] == 1, already)
    assert (found.verdict[~already] == Verdict.BUDGET).all()
    # certificates of the run say nothing about another edit
    assert (found.smaller, found.method) == (None, "identity edit")


def test_a_random_real_image_is_valid_and_another_one(run) -> None:
    reference = cohort(MEANS, 40, seed=3)
    found = random_real(run, reference, Quadratic(MEANS), oracle=Linear((8, 8)))
    for image, target in zip(found.x_cf, found.target, strict=True):
        same = (reference.x == image).flatten(1).all(1).nonzero().flatten().tolist()
        assert [int(reference.y[i]) for i in same] == [int(target)]
    assert torch.equal(found.probs_after, Judge(Quadratic(MEANS)).probabilities(found.x_cf))
    assert torch.equal(found.oracle_probs_after, Judge(Linear((8, 8))).probabilities(found.x_cf))
    assert evaluate(found)["oracle_validity"] > 0.9
    assert (per_row(found)["l2"] > 0.1).all()


def test_the_choice_belongs_to_the_row_and_the_seed(run) -> None:
    reference = cohort(MEANS, 40, seed=3)
    whole = random_real(run, reference, Quadratic(MEANS))
    assert torch.equal(random_real(run[[7, 2]], reference, Quadratic(MEANS)).x_cf, whole.x_cf[[7, 2]])
    assert not torch.equal(random_real(run, reference, Quadratic(MEANS), seed=1).x_cf, whole.x_cf)
    assert len({tuple(image.flatten().tolist()) for image in whole.x_cf}) > 6
    assert whole.oracle_probs_after is None


def test_bad_references_are_named(run) -> None:
    reference, classifier = cohort(MEANS, 10), Quadratic(MEANS)
    for bad in (
        replace(reference, y=None),
        reference[reference.y == 0],
        cohort(class_means((6, 6)), 4),
    ):
        with pytest.raises(InputError, match="reference"):
            random_real(run, bad, classifier)
