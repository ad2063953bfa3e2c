"""One convention for every classifier, gradients that are right, and a classifier left as it was found."""

import pytest
import torch
from torch import nn

from cfx.core.errors import InputError
from cfx.core.values import Cohort
from cfx.counterfactual import Minimal, explain
from cfx.counterfactual.judge import Finding, Judge, Near, at_rest, margin_of, typical_margins
from tests.counterfactual.toys import ClassGaussian, class_means, cohort

W = torch.tensor([[0.5, -1.0, 2.0, 0.1], [1.5, 0.3, -0.7, 0.2], [-0.4, 0.9, 0.6, -1.2]])


class Affine(nn.Module):
    """Logits W x + b of 2 x 2 images, in the shape asked for."""

    def __init__(self, weight, shape=(-1,), bias=0.1):
        super().__init__()
        self.weight, self.shape, self.bias = nn.Parameter(weight), shape, bias

    def forward(self, x):
        return (x.flatten(1) @ self.weight.T + self.bias).reshape(len(x), *self.shape)


def images(n=6, seed=0):
    return torch.rand(n, 1, 2, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("target", [0, 1])
def test_one_logit_a_column_of_one_and_two_columns_agree(target):
    x, y = images(), torch.full((6,), target)
    one = Judge(Affine(W[:1], ()))
    column = Judge(Affine(W[:1]))
    two = Judge(nn.Sequential(Affine(W[:1]), nn.Linear(1, 2, bias=False)))
    two.classifier[1].weight.data = torch.tensor([[0.0], [1.0]])
    logit = x.flatten(1) @ W[0] + 0.1
    expected = logit if target == 1 else -logit
    for judge in (one, column, two):
        torch.testing.assert_close(judge.logits(x), torch.stack([torch.zeros(6), logit], 1))
        torch.testing.assert_close(judge.margin(x, y), expected)
        torch.testing.assert_close(judge.probabilities(x, batch=4)[:, 1], logit.sigmoid())
        torch.testing.assert_close(judge.gradient(x, y), (2 * target - 1) * W[0].view(1, 1, 2, 2).expand_as(x))


def test_margin_and_gradient_of_three_classes():
    x, y = images(), torch.tensor([0, 1, 2, 0, 1, 2])
    judge = Judge(Affine(W))
    logits = x.flatten(1) @ W.T + 0.1
    rival = torch.stack([row.masked_fill(torch.arange(3) == t, -9).argmax() for row, t in zip(logits, y, strict=True)])
    expected = logits.gather(1, y[:, None])[:, 0] - logits.gather(1, rival[:, None])[:, 0]
    torch.testing.assert_close(judge.margin(x, y), expected)
    torch.testing.assert_close(judge.gradient(x, y), (W[y] - W[rival]).view(6, 1, 2, 2))
    assert torch.equal(margin_of(logits, logits.argmax(1)) > 0, torch.ones(6, dtype=torch.bool))


def test_a_gradient_is_had_where_gradients_are_off_and_leaves_none_behind():
    judge, x = Judge(Affine(W)), images()
    with torch.no_grad(), judge.at_rest():
        g = judge.gradient(x, torch.zeros(6, dtype=torch.long))
    assert not g.requires_grad
    assert not x.requires_grad
    assert judge.classifier.weight.grad is None


def test_a_finding_is_a_binary_classifier():
    x, labels = images(), Affine(W)
    for k in range(3):
        logits = Judge(Finding(labels, k)).logits(x)
        torch.testing.assert_close(logits, torch.stack([torch.zeros(6), labels(x)[:, k]], 1))
    for k in (-1, 3):
        with pytest.raises(InputError, match=rf"k: expected a finding in 0 .. 2, got {k}"):
            Judge(Finding(labels, k)).logits(x)


def test_at_rest_gives_every_part_its_own_state_back():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    net.train()
    net[1].eval()
    net[0].weight.requires_grad_(False)

    def work():
        with at_rest(net):
            assert not any(m.training for m in net.modules())
            assert not any(p.requires_grad for p in net.parameters())
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert [m.training for m in net] == [True, False, True]
    assert net.training
    grads = {name: p.requires_grad for name, p in net.named_parameters()}
    assert grads == {"0.weight": False, "0.bias": True, "1.weight": True, "1.bias": True}
    with at_rest(None), at_rest(lambda x: x):
        pass


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        (nn.Linear(9, 2), r"scan: failed on images of shape \(6, 1, 2, 2\): "),
        (nn.Identity(), r"scan: expected logits of shape \(6, k\), got \(6, 1, 2, 2\)"),
        (nn.Flatten(0), r"scan: expected logits of shape \(6, k\), got \(24,\)"),
        (nn.LSTM(2, 2), r"scan: failed on images of shape \(6, 1, 2, 2\): LSTM: Expected input to be 2D or 3D"),
        (lambda x: {"logits": x}, r"scan: expected logits of shape \(6, k\), got dict"),
    ],
)
def test_what_is_no_classifier_is_refused_by_name(classifier, message):
    if not isinstance(classifier, nn.Module):
        wrapped = nn.Identity()
        wrapped.forward = classifier
        classifier = wrapped
    with pytest.raises(InputError, match=message):
        Judge(classifier, "scan").logits(images())


def test_no_gradient_is_refused():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            return self.bias.expand(len(x), 2)

    y = torch.zeros(6, dtype=torch.long)
    with pytest.raises(InputError, match="classifier: expected logits that depend on the image, got none that do"):
        Judge(Constant()).gradient(images(), y)
    detached = Affine(W)
    detached.register_forward_hook(lambda module, inputs, out: out.detach())
    with pytest.raises(InputError, match="classifier: expected logits with a gradient to the image, got detached ones"):
        Judge(detached).gradient(images(), y)


class FirstPixel(nn.Module):
    """The first pixel is the binary logit."""

    def forward(self, x):
        return x[:, 0, 0, 0]


def reference(pixels, y):
    x = torch.zeros(len(pixels), 1, 2, 2)
    x[:, 0, 0, 0] = torch.tensor(pixels)
    return Cohort(x, y=None if y is None else torch.tensor(y))


def test_typical_margins_are_lower_deciles_over_recognised_images():
    # class 0 recognised with margins 0.1, 0.4, 0.9; class 1 with 0.2, 0.3, 0.8; the last of each class is mistaken
    pixels = [-0.1, -0.9, -0.4, 0.7, 0.2, 0.8, 0.3, -0.6]
    margins = typical_margins(FirstPixel(), reference(pixels, [0, 0, 0, 0, 1, 1, 1, 1]))
    torch.testing.assert_close(margins, torch.tensor([0.16, 0.22]))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 0, 0], "reference: expected images of class 1 that the classifier recognises, got none"),
        ([1, 1, 0], "reference: expected images of class 0 that the classifier recognises, got none"),
        (None, "reference: expected a cohort with one class label an image, got none"),
    ],
)
def test_a_reference_without_some_class_is_refused(y, message):
    with pytest.raises(InputError, match=message):
        typical_margins(FirstPixel(), reference([-0.5, 0.2, 0.3], y))


class Mean(torch.nn.Module):
    """A regressor: the mean pixel."""

    def forward(self, x):
        return x.flatten(1).mean(1)


def test_a_value_is_near_exactly_within_its_tolerance():
    x = torch.tensor([0.0, 0.2, 0.3, 0.4, 0.6]).view(5, 1, 1, 1).expand(5, 1, 4, 4)
    logit = Near(Mean(), 0.3, 0.15)(x)[:, 0]
    torch.testing.assert_close(logit, torch.tensor([-4.0, 4 / 3, 4.0, 4 / 3, -4.0]))


def test_a_value_is_reached():
    means = class_means((8, 8))
    near = Near(Mean(), 0.12, 0.06)
    result = explain(
        cohort(means, 4), near, ClassGaussian(means, False), 1, depth="boundary", method=Minimal(trials=14)
    )
    assert result.validity == 1.0
    assert ((Mean()(result.x_cf) - 0.12).abs() <= 0.06).all()


def test_what_is_no_value_or_no_tolerance_is_refused():
    with pytest.raises(InputError, match="tolerance: expected a positive number, got 0"):
        Near(Mean(), 0.3, 0.0)
    with pytest.raises(InputError, match=r"regressor: expected one value an image, got shape \(2, 16\)"):
        Near(torch.nn.Flatten(), 0.3, 0.1)(torch.zeros(2, 1, 4, 4))
