"""What is taken for probabilities, logits and classes, and what is told by its name."""

import numpy as np
import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.probabilities import classes, entries, logits, probabilities

P = torch.tensor([[0.2, 0.8], [0.5, 0.5]])


def test_arrays_lists_and_half_precision_are_taken():
    assert probabilities(P.numpy()).equal(P)
    assert probabilities(torch.randn(4, 5, 3).softmax(1).half()).dtype == torch.float16
    assert classes(np.array([[1], [0]], dtype=np.uint8)[:, 0], P).tolist() == [1, 0]
    assert logits(torch.tensor([[0.2, 0.9]])).shape == (1, 2)  # adds up to more than one


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (torch.tensor([[2.0, -1.0]]), "expected probabilities in \\[0, 1\\].*pass logits.softmax"),
        (torch.tensor([[0.5, 0.6]]), "add up to 1"),
        (torch.tensor([[0.5, float("nan")]]), "expected probabilities in"),
        (torch.tensor([0.5]), "expected probabilities \\(n, k"),
        (torch.tensor([[0.5]]), "torch.stack\\(\\[1 - q, q\\], 1\\)"),
        (torch.tensor([[1, 0]]), "expected probabilities"),
        (torch.zeros(0, 2), "at least one row"),
    ],
)
def test_what_are_no_probabilities_is_said(bad, words):
    with pytest.raises(InputError, match=f"p: .*{words}"):
        probabilities(bad)


@pytest.mark.parametrize("bad", [P, torch.tensor([[1.0, torch.inf]]), torch.zeros(3), torch.zeros(3, 1)])
def test_what_are_no_logits_is_said(bad):
    with pytest.raises(InputError, match="logits: expected"):
        logits(bad)


@pytest.mark.parametrize("bad", [[0, 2], [-1, 0], [0], [0.5, 1.0]])
def test_what_are_no_classes_is_said(bad):
    with pytest.raises(InputError, match="y: expected"):
        classes(torch.tensor(bad), P)


def test_wide_rows_are_worked_on_one_by_one():
    assert entries(1 << 30) == 1
    assert entries(4) == 4 * entries(16)
