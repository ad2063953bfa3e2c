"""The class a row comes from, the probability of a label, and how far images are apart: known answers."""

from dataclasses import replace

import pytest
import torch

from cfx.counterfactual.metrics.measure import apart, probability, rms, source_class
from tests.counterfactual.metrics.hand_made import result_of


def test_the_source_is_the_most_probable_class_but_the_target():
    x = torch.zeros(3, 1, 2, 2)
    probs = torch.tensor([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.5, 0.5, 0.0]])
    result = replace(result_of(x, x), probs_before=probs, probs_after=probs, target=torch.tensor([2, 1, 0]))
    assert source_class(result).tolist() == [1, 0, 1]


def test_each_row_has_the_probability_of_its_own_label():
    probs = torch.tensor([[0.1, 0.9], [0.75, 0.25]])
    assert probability(probs, torch.tensor([1, 0])).tolist() == pytest.approx([0.9, 0.75])


@pytest.mark.parametrize("space", [(2, 2), (2, 1, 2)])
def test_images_are_apart_by_the_root_mean_square_or_by_a_distance(space):
    a = torch.zeros(2, 1, *space)
    b = torch.tensor([3.0, 4.0, 0.0, 0.0]).view(1, 1, *space).expand(2, 1, *space) * torch.tensor([1.0, 2.0]).view(
        2, 1, *[1] * len(space)
    )
    assert rms(b).tolist() == pytest.approx([2.5, 5.0])
    assert torch.equal(apart(a, b), rms(b))
    assert torch.equal(apart(a + 1, b + 1), apart(b, a))
    assert apart(a, b, lambda u, v: (v - u).flatten(1).amax(1)).tolist() == [4.0, 8.0]
