"""The laws of composition and reversibility on edits that keep or break them by a known amount."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.counterfactual.metrics import composition, reversibility
from tests.counterfactual.metrics.hand_made import result_of

X = torch.linspace(-0.5, 0.5, 3).view(3, 1, 1, 1).expand(3, 1, 4, 4).contiguous()


def test_an_exact_null_edit_composes_to_nothing() -> None:
    assert torch.equal(composition(X, lambda x: x.clone()), torch.zeros(3, 10))


def test_a_drift_adds_up_cycle_by_cycle() -> None:
    found = composition(X, lambda x: x + 0.01, cycles=4)
    torch.testing.assert_close(found, torch.tensor([0.01, 0.02, 0.03, 0.04]).expand(3, 4), atol=1e-6, rtol=0)
    most = composition(X, lambda x: x + 0.01, cycles=2, distance=lambda a, b: 2 * (a - b).abs().flatten(1).amax(1))
    torch.testing.assert_close(most[:, 1], torch.full((3,), 0.04), atol=1e-6, rtol=0)


def test_there_and_back() -> None:
    there = result_of(X, X + 0.3)
    assert (reversibility(there, result_of(X + 0.3, X)) == 0).all()
    torch.testing.assert_close(reversibility(there, result_of(X + 0.3, X + 0.1)), torch.full((3,), 0.1))


def test_the_way_back_leads_to_the_class_of_the_image() -> None:
    there = result_of(X, X + 0.3)
    asked = []

    def back(images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        asked.append(target.tolist())
        return images - 0.2

    torch.testing.assert_close(reversibility(there, back), torch.full((3,), 0.1))
    assert asked == [[0, 0, 0]]


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="back"):
        reversibility(result_of(X, X + 0.3), result_of(X, X))
    with pytest.raises(InputError, match="cycles"):
        composition(X, lambda x: x, cycles=0)
