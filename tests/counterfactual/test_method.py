"""The contract of methods: every evaluation is counted for its row, what must not change does not, the best is kept."""

import pytest
import torch

from cfx.core.broadcast import each, rms, unit
from cfx.core.errors import InputError
from cfx.counterfactual.method import Attempts, Meter, Method
from cfx.counterfactual.registry import METHODS, build_method
from tests.counterfactual.baselines.problems import problem, spent

ROWS = torch.tensor([2, 0, 2])


def test_a_meter_counts_a_row_as_often_as_it_occurs():
    meter = Meter(4)
    meter.count("classifier", torch.tensor([3, 1, 3]))
    meter.count("classifier", torch.tensor([3]))
    meter.count("unet_backward", torch.tensor([], dtype=torch.long))
    assert meter.classifier.tolist() == [0, 1, 0, 3]
    assert meter.unet_forward.tolist() == meter.unet_backward.tolist() == meter.classifier_backward.tolist() == [0] * 4


def test_what_is_asked_through_the_problem_is_counted_for_its_row():
    p = problem()
    p.posterior(ROWS, p.x[ROWS], 500)
    p.excess(ROWS, p.x[ROWS])
    p.gradient(ROWS, p.x[ROWS])
    p.log_gradient(ROWS[:1], p.x[ROWS[:1]])
    assert spent(p) == {
        "unet_forward": [1, 0, 2, 0], "unet_backward": [0] * 4, "classifier": [2, 0, 5, 0],
        "classifier_backward": [1, 0, 3, 0],
    }  # fmt: skip


def test_the_excess_is_the_margin_beyond_the_one_asked_for_and_nan_where_it_is_not_finite():
    p = problem(margin=0.5)
    image = p.x.clone()
    image[1, 0, 0, 0] = torch.inf
    found = p.excess(p.everyone, image)
    expected = p.before - 0.5
    assert found.isnan().tolist() == [False, True, False, False]
    torch.testing.assert_close(found[[0, 2, 3]], expected[[0, 2, 3]])
    torch.testing.assert_close(p.excess(ROWS, p.x[ROWS] * 1.0), expected[ROWS])
    assert torch.equal(p.excess(p.everyone, 9 * p.x), p.excess(p.everyone, (9 * p.x).clamp(-1, 1)))


def test_gradients_are_those_of_the_linear_classifier():
    """Its margin towards class 1 is 8 <x - middle, weight>, towards class 0 minus that."""
    p = problem()
    slope = 8 * p.judge.classifier.classifier.weight
    sign = (2.0 * p.target - 1).view(-1, 1, 1, 1)
    torch.testing.assert_close(p.gradient(p.everyone, p.x), sign * slope)
    chance = torch.sigmoid(p.before).view(-1, 1, 1, 1)  # d log p = (1 - p) d margin
    torch.testing.assert_close(p.log_gradient(p.everyone, p.x), (1 - chance) * sign * slope)


def test_what_is_not_allowed_to_change_is_restored():
    allowed = torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    allowed[2, :, 3:] = True
    p = problem(allowed=allowed)
    out = p.restrict(ROWS, torch.ones(3, 1, 8, 8))
    assert torch.equal(out[1], p.x[0])
    assert torch.equal(out[0, :, :3], p.x[2, :, :3])
    assert (out[[0, 2], :, 3:] == 1).all()
    free = torch.ones(3, 1, 8, 8)
    assert problem().restrict(ROWS, free) is free


def test_a_generator_of_another_kind_is_refused():
    p = problem()
    assert p.diffusion is p.generator
    with pytest.raises(InputError, match="generator: expected an autoencoder, got Counted"):
        _ = p.vae


class Script:
    """Attempts at the four rows of a problem, each an image that a size along the classifier's weight makes."""

    def __init__(self):
        self.p = problem(margin=1.0)
        weight = self.p.judge.classifier.classifier.weight
        self.along = weight / weight.norm() * (2.0 * self.p.target - 1).view(-1, 1, 1, 1)
        self.attempts = Attempts(self.p)

    def add(self, rows, sizes, strength):
        rows = torch.tensor(rows)
        image = self.p.x[rows] + each(torch.tensor(sizes), self.p.x[rows]) * self.along[rows]
        self.attempts.add(rows, image, strength)


def test_the_cost_of_the_first_attempt_that_flips_is_kept():
    p = problem(margin=100.0)
    attempts = Attempts(p)
    other = p.x[[1, 0, 3, 2]]  # images of the other class
    spend = torch.tensor([0, 0, 1, 3])
    p.meter.count("unet_forward", spend)
    attempts.add(torch.tensor([0, 1]), other[:2], 1.0)
    p.meter.count("unet_backward", p.everyone)
    p.excess(torch.tensor([2]), other[2:3])  # looked at, but no attempt
    attempts.add(torch.tensor([3]), p.x[3:], 2.0)  # does not flip
    assert p.meter.to_flip[:2].tolist() == [2.0, 1.0]
    assert p.meter.to_flip[2:].isnan().all()
    attempts.add(p.everyone[:3], other[:3], 3.0)
    assert p.meter.to_flip[:3].tolist() == [2.0, 1.0, 1.0]


def test_attempts_keep_the_first_that_reaches_the_margin_else_the_closest():
    s = Script()
    assert s.attempts.unsolved.tolist() == [0, 1, 2, 3]
    s.add([0, 1, 2], [0.1, 9.0, -0.1], 1.0)  # closer, there, further away
    assert s.attempts.unsolved.tolist() == [0, 2, 3]
    s.add([0, 1], [0.05, 8.0], torch.tensor([2.0, 3.0]))  # not as close as before, and there already
    found = s.attempts.proposal()
    assert found.strength.tolist() == [1, 1, 0, 0]
    assert torch.equal(found.image[2:], s.p.x[2:])
    torch.testing.assert_close(found.image[0], s.p.x[0] + 0.1 * s.along[0])
    assert found.finite.all()
    assert found.smaller.isnan().all()


def test_an_attempt_that_is_not_finite_gives_the_row_up():
    s = Script()
    s.add([3, 0], [torch.nan, 0.1], 1.0)
    assert s.attempts.unsolved.tolist() == [0, 1, 2]
    found = s.attempts.proposal()
    assert found.finite.tolist() == [True, True, True, False]
    assert torch.equal(found.image[3], s.p.x[3])


def test_lengths_of_rows():
    g = torch.tensor([[3.0, 4.0], [0.0, 0.0]]).view(2, 1, 1, 2)
    assert rms(g).flatten().tolist() == pytest.approx([12.5**0.5, 1e-12])
    assert rms(unit(g)).flatten().tolist() == pytest.approx([1.0, 1e-12])
    assert each(torch.tensor([1.0, 2.0]), g).shape == (2, 1, 1, 1)


@pytest.mark.parametrize("name", METHODS)
def test_every_registered_method_is_one(name):
    method = build_method(name)
    assert isinstance(method, Method)
    assert type(method).name in name  # fastdime-2 is fastdime with its second mask
