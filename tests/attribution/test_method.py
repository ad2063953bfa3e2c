"""A question counts every evaluation for its row."""

import torch

from cfx.attribution.method import Question
from cfx.models.judge import Judge
from tests.attribution.networks import Linear, images


def question(**more) -> Question:
    x = images(2)
    return Question(x, torch.tensor([0, 2]), x * 0, Judge(Linear()), torch.arange(2), **more)


def test_copies_of_a_row_stand_together_and_are_counted():
    q = question(batch_size=3)
    assert q.rows(6).tolist() == [0, 0, 0, 1, 1, 1]
    many = q.x.repeat_interleave(3, 0)
    torch.testing.assert_close(q.value(many), q.at_x.repeat_interleave(3))
    assert q.spent.classifier.tolist() == [4, 4]
    assert q.gradient(q.x[:1], torch.tensor([1])).shape == (1, 1, 8, 8)
    assert (q.spent.classifier.tolist(), q.spent.classifier_backward.tolist()) == ([4, 5], [0, 1])


def test_values_come_with_their_gradients_and_a_margin_is_over_the_best_other():
    q = question()
    value, slope = q.both(q.x, torch.arange(2))
    torch.testing.assert_close(value, q.at_x)
    torch.testing.assert_close(slope, q.gradient(q.x))
    logits = torch.tensor([[1.0, 5.0, 3.0], [1.0, 5.0, 3.0]])
    assert question(output="margin").score(logits, torch.arange(2)).tolist() == [-4.0, -2.0]
    assert question().score(logits, torch.arange(2)).tolist() == [1.0, 3.0]
