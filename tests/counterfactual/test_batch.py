"""The engine judges what any method proposes: by the final image, row by row, and with every evaluation counted."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from cfx.core.errors import InputError
from cfx.counterfactual import explain
from cfx.counterfactual.method import Proposal
from cfx.counterfactual.reading import POINTS
from tests.counterfactual.toys import ClassGaussian, Fragile, Linear, checkers, class_means, cohort

MEANS = class_means((8, 8))
N = 6


@dataclass(frozen=True)
class Says:
    """A method that proposes what it was told, for the rows it is given."""

    name: ClassVar[str] = "says"

    images: Tensor
    finite: Tensor | None = None
    consent: Tensor | None = None

    def propose(self, problem):
        rows = problem.row
        problem.meter.count("unet_forward", problem.everyone[rows > 2])
        ones = torch.ones(len(rows))
        consent = None if self.consent is None else self.consent[rows]
        finite = ones > 0 if self.finite is None else self.finite[rows]
        return Proposal(self.images[rows], 2 * ones, finite, -ones, consent)


def images(other: float = 1.0) -> tuple[Tensor, Tensor]:
    """Means of the classes in turn, and the same `other` of the way to the other class."""
    y = torch.arange(N) % 2
    return MEANS[y], MEANS[y] + other * (MEANS[1 - y] - MEANS[y])


def run(method, x, classifier=None, **more):
    y = torch.arange(N) % 2
    return explain(x, classifier or Linear((8, 8)), None, 1 - y, depth="boundary", method=method, **more)


def test_verdicts_are_those_of_the_final_image():
    x, there = images()
    there[2], there[3] = x[2], (x[3] + there[3]) / 2.2  # no change, and half of the way
    result = run(Says(there), x)
    assert result.verdicts == ("flipped", "flipped", "budget", "budget", "flipped", "flipped")
    there[3] = torch.where(result.read[3], there[3], x[3])  # of a miss only what is read comes back
    assert torch.equal(result.x_cf, there)
    assert torch.equal(result.edited, (there != x).any(1, keepdim=True))
    assert (result.method, result.strength.tolist()) == ("says", [2.0] * N)
    assert (result.smaller == -1).all()
    assert result.consent.isnan().all()
    assert torch.equal(result.probs_after[:, 1], torch.sigmoid(Linear((8, 8))(there)))


def test_rows_that_are_there_already_are_not_handed_to_the_method():
    x, there = images()
    result = explain(x, Linear((8, 8)), None, 1, depth="boundary", method=Says(there, consent=torch.ones(N)))
    here = torch.arange(N) % 2 == 1
    assert [v == "already" for v in result.verdicts] == here.tolist()
    assert torch.equal(result.x_cf[here], x[here])
    assert not result.edited[here].any()
    assert result.strength.tolist() == [2.0, 0.0] * 3
    assert result.consent.isnan().tolist() == result.smaller.isnan().tolist() == here.tolist()
    assert result.nfe_unet_forward.tolist() == [0, 0, 0, 0, 1, 0]  # of rows beyond 2 that had to change


def test_a_row_that_is_given_up_comes_back_unchanged():
    x, there = images()
    result = run(Says(there, finite=torch.arange(N) != 4), x)
    assert result.verdicts == ("flipped",) * 4 + ("refused", "flipped")
    assert torch.equal(result.x_cf[4], x[4])
    assert result.strength[4] == 0


def test_what_the_user_keeps_is_restored_whatever_a_method_does():
    x, there = images()
    keep = torch.zeros(N, 1, 8, 8, dtype=torch.bool)
    keep[:3] = True
    result = run(Says(there), x, keep=keep)
    assert torch.equal(result.x_cf[:3], x[:3])
    assert torch.equal(result.x_cf[3:], there[3:])
    assert result.verdicts == ("budget",) * 3 + ("flipped",) * 3


def test_a_decision_that_noise_undoes_is_unstable():
    """A faint pattern convinces a fragile classifier, and no denoiser keeps it."""
    x = cohort(MEANS, N).x
    there = x + 0.15 * checkers((8, 8))
    generator = ClassGaussian(MEANS, conditional=False)
    fragile, without = (
        explain(x, Fragile((8, 8)), None, 1, depth="boundary", method=Says(there), reviewer=reviewer)
        for reviewer in (generator, None)
    )
    assert set(fragile.verdicts) == {"unstable"}
    assert set(without.verdicts) == {"flipped"}
    assert (fragile.nfe_unet_forward - without.nfe_unet_forward).tolist() == [1] * N  # the review
    assert (fragile.nfe_classifier - without.nfe_classifier).tolist() == [1] * N
    assert set(run(Says(images()[1]), images()[0], reviewer=generator).verdicts) == {"flipped"}


@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_every_row_is_its_own_whatever_the_batch(batch_size):
    x, there = images()
    result = run(Says(there), x, batch_size=batch_size, oracle=Linear((8, 8)))
    assert torch.equal(result.x_cf, there)
    assert result.row.tolist() == list(range(N))
    assert result.nfe_unet_forward.tolist() == [0, 0, 0, 1, 1, 1]
    # before, the verdict's and the last word; the way of the gradients, and each part alone
    assert result.nfe_classifier.tolist() == [3 + POINTS + 2] * N
    assert result.nfe_classifier_backward.tolist() == [POINTS] * N
    assert (result.seconds > 0).all()
    torch.testing.assert_close(result.oracle_probs_after, result.probs_after)


def test_a_gate_says_of_every_edited_image_and_every_input_whether_it_is_in_distribution():
    x, there = images()
    there[2] = x[2]
    seen = []

    def gate(images):
        seen.append(len(images))
        return images.flatten(1).amax(1).sigmoid()

    result, without = run(Says(there), x, gate=gate), run(Says(there), x)
    assert seen[0] == 1  # before anything is changed
    assert sum(seen) == 1 + N + N - 1  # the inputs, and what was edited
    assert result.gate_p.isnan().tolist() == [i == 2 for i in range(N)]
    some = torch.arange(N) != 2
    torch.testing.assert_close(result.gate_p[some], result.x_cf[some].flatten(1).amax(1).sigmoid().double())
    torch.testing.assert_close(result.gate_p_before, x.flatten(1).amax(1).sigmoid().double())
    assert result.gated_out.tolist() == [False] * N
    low = result.replace(gate_p=torch.tensor([0.05, 0.051, torch.nan, 0.01, 1, 0.06], dtype=torch.float64))
    assert low.gated_out.tolist() == [True, False, False, True, False, False]
    assert (without.gate_p, without.gate_p_before, without.gated_out.tolist()) == (None, None, [False] * N)
    for name, values in without.parts().items():
        if name != "seconds":
            torch.testing.assert_close(values, result.parts()[name], rtol=0, atol=0, equal_nan=True)


def test_what_gives_no_p_values_is_refused_before_anything_is_changed():
    x, there = images()
    with pytest.raises(InputError, match="gate: expected one p-value an image"):
        run(Says(there), x, gate=lambda images: images)
    with pytest.raises(InputError, match="gate: expected a function"):
        run(Says(there), x, gate=Linear)
