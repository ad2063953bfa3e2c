"""COUT, attribute change and diversity where the answer can be counted by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.counterfactual.metrics import attribute_change, cout, diversity
from tests.counterfactual.metrics.hand_made import result_of


class Weighted(nn.Module):
    """Logits (0, sharpness * (<weight, x> - half)), or with further columns that never win."""

    def __init__(self, weight: torch.Tensor, sharpness: float = 80.0, half: float = 0.5, more: int = 0) -> None:
        super().__init__()
        self.weight, self.sharpness, self.half, self.more = weight, sharpness, half, more

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logit = self.sharpness * ((x * self.weight).flatten(1).sum(1) - self.half)
        zero = torch.zeros_like(logit)
        return torch.stack([zero, logit, *[zero - 50] * self.more], 1)


def pixel(i: int, j: int, n: int = 1) -> torch.Tensor:
    x = torch.zeros(n, 1, 10, 10)
    x[:, :, i, j] = 1
    return x


@pytest.mark.parametrize("more", [0, 2])
def test_one_decisive_pixel_scores_all_but_the_first_trapezoid(more: int) -> None:
    x = torch.zeros(3, 1, 10, 10)
    result = result_of(x, pixel(4, 7, 3))
    if more:
        probs = torch.tensor([[0.7, 0.2, 0.05, 0.05]]).expand(3, 4)
        result = replace(result, probs_before=probs, probs_after=probs)
    # the difference is -1 at step 0 and 1 from step 1 on
    for steps in (50, 10):
        found = cout(result, Weighted(pixel(4, 7), more=more), steps=steps)
        assert found.tolist() == pytest.approx([(steps - 1) / steps] * 3, abs=1e-9)


def test_pixels_come_in_the_order_of_their_change() -> None:
    """Decisive is the least of ten changed pixels: with ten steps of ten pixels it is there from step 1 on."""
    x_cf = torch.zeros(1, 1, 10, 10)
    x_cf[0, 0, 3] = torch.linspace(-1, -0.55, 10)
    x_cf[0, 0, 8, 8] = 0.5
    classifier = Weighted(pixel(8, 8), half=0.25)
    result = result_of(torch.zeros_like(x_cf), x_cf)
    assert cout(result, classifier, steps=10)[0] == pytest.approx((-1 * 1.5 + 8.5) / 10)
    assert cout(result, classifier, steps=100)[0] == pytest.approx((-10.5 + 89.5) / 100)


def test_no_edit_keeps_the_difference_of_the_image() -> None:
    x = normal((1, 10, 10), seed=2, row=torch.arange(4), stream=0).clamp(-1, 1) * 0.1
    classifier = Weighted(pixel(4, 7), sharpness=1.0)
    p = classifier(x).softmax(1)
    found = cout(result_of(x, x.clone()), classifier)
    torch.testing.assert_close(found.float(), p[:, 1] - p[:, 0])
    assert found.isfinite().all()


def test_cout_is_between_minus_one_and_one_and_odd_under_exchange_of_the_classes() -> None:
    x, x_cf = (normal((1, 10, 10), seed=2, row=torch.arange(6), stream=s).clamp(-1, 1) for s in (0, 1))
    classifier = Weighted(pixel(4, 7) + 0.1, sharpness=5.0)
    result = result_of(x, x_cf)
    other = replace(result, target=1 - result.target, probs_before=result.probs_before.flip(1))
    found = cout(result, classifier)
    assert (found.abs() <= 1).all()
    torch.testing.assert_close(cout(other, classifier), -found)


def test_attributes_that_stay_do_not_change_and_those_that_go_do() -> None:
    x = torch.zeros(3, 1, 10, 10)
    names = {"edited": Weighted(pixel(4, 7), 2.0), "apart": Weighted(pixel(1, 1), 2.0)}
    found = attribute_change(result_of(x, pixel(4, 7, 3)), names)
    sigmoid = 1 / (1 + math.exp(-1))
    assert found["edited_probability"].tolist() == pytest.approx([2 * sigmoid - 1] * 3)
    assert found["edited_log_odds"].tolist() == pytest.approx([2.0] * 3, abs=1e-5)
    assert (found["apart_probability"] == 0).all()
    assert (found["apart_log_odds"] == 0).all()


def test_log_odds_tell_where_probabilities_are_saturated() -> None:
    x = torch.zeros(1, 1, 10, 10)
    found = attribute_change(result_of(x, pixel(4, 7)), {"a": Weighted(pixel(4, 7), 20.0, half=5.0, more=1)})
    assert found["a_probability"][0] < 1e-6
    assert found["a_log_odds"][0] > 5


def test_diversity_is_the_mean_over_pairs() -> None:
    x = torch.zeros(2, 1, 4, 4)
    runs = [result_of(x, x + c) for c in (0.0, 0.3, 0.9)]
    assert diversity(runs).tolist() == pytest.approx([0.6] * 2)
    assert diversity(runs, lambda a, b: (a - b).flatten(1).square().sum(1)).tolist() == pytest.approx(
        [16 * (0.09 + 0.36 + 0.81) / 3] * 2
    )
    assert diversity([runs[1], runs[1]]).tolist() == [0, 0]


def test_bad_input_is_named() -> None:
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(InputError, match="steps"):
        cout(result_of(x, x), Weighted(pixel(1, 1)), steps=0)
    with pytest.raises(InputError, match="at least two"):
        diversity([result_of(x, x)])
    with pytest.raises(InputError, match="same images"):
        diversity([result_of(x, x), result_of(x + 0.5, x)])
