"""One convention for every classifier, gradients that are right, and a classifier left as it was found."""

import pytest
import torch
from torch import nn

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.counterfactual import explain
from cfx.models.goal import typical_margins
from cfx.models.judge import Judge, margin_of
from cfx.models.running import at_rest
from cfx.models.wrappers import Finding, Near
from tests.counterfactual.baselines.problems import Still
from tests.counterfactual.toys import ClassGaussian, Projection, class_means, cohort

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
    near = Near(Mean(), 0.3, 0.15)
    u = torch.tensor([-2.0, -2 / 3, 0.0, 2 / 3, 2.0])
    torch.testing.assert_close(near(x), torch.stack([-4 * u, torch.full((5,), 4.0), 4 * u], 1))
    assert near(x).argmax(1).tolist() == [0, 1, 1, 1, 2]
    torch.testing.assert_close(margin_of(near(x), torch.ones(5, dtype=torch.long)), 4 * (1 - u.abs()))


def test_the_side_an_edit_came_from_measures_how_far_it_went():
    values = torch.linspace(-1, 1, 9)
    x, u = values.view(9, 1, 1, 1).expand(9, 1, 4, 4), (values - 0.2) / 0.1
    judge, one = Judge(Near(Mean(), 0.2, 0.1)), torch.ones(9, dtype=torch.long)
    for source, side in ((0, u), (2, -u)):
        torch.testing.assert_close(judge.margin(x, one, source * one), 4 * (1 + side))
        sign = 1 - source
        torch.testing.assert_close(judge.gradient(x, one, source * one), torch.full_like(x, sign * 4 / 0.1 / 16))
    # out of the tolerance, either way: nothing lies beyond, so the side is all there is
    for target, source in ((0, 1), (0, 2), (2, 1), (2, 0)):
        there = judge.margin(x, target * one, source * one)
        torch.testing.assert_close(there, judge.margin(x, target * one))
        assert (there.diff() * (target - 1) > 0).all()
    # without order a source says nothing
    plain = Judge(Affine(W))
    y, some = torch.tensor([0, 1, 2]), images(3)
    torch.testing.assert_close(plain.margin(some, y, (y + 1) % 3), plain.margin(some, y))


class Value(Projection):
    """A linear regressor: about -0.5 for images of class 0, 0.5 for those of class 1."""

    def forward(self, x):
        return self.u(x)


def reached(method, depth, tolerance, target=1, goal=0.1, **more):
    """Values of eight images, half of them from either side, before and after, and the result; in tolerances."""
    space = more.pop("space", (8, 8))
    means = class_means(space)
    value, data = Value(space), cohort(means, 8)
    near = Near(value, goal, tolerance)
    result = explain(data, near, ClassGaussian(means, False), target, depth=depth, method=method, **more)
    return *((value(v) - goal) / tolerance for v in (data.x, result.x_cf)), result


@pytest.mark.parametrize("method", ["minimal", "morph"])
@pytest.mark.parametrize("tolerance", [0.06, 0.002])
def test_the_least_change_stops_at_the_edge_of_the_tolerance(method, tolerance):
    before, after, result = reached(method, "boundary", tolerance)
    assert result.validity == 1.0
    assert (before[::2] < -1).all()
    assert (before[1::2] > 1).all()
    # 1 / 4096 of an edit that moves the value by 1 is an eighth of the finer tolerance
    torch.testing.assert_close(after.abs(), torch.ones(8), atol=1 / 4096 / tolerance, rtol=0)
    assert torch.equal(after.sign(), before.sign())
    assert result.certified.all()


@pytest.mark.parametrize("method", ["minimal", "morph"])
def test_typical_of_a_value_is_half_the_tolerance(method):
    before, after, result = reached(method, "typical", 0.01)
    assert (result.margin == Near.TYPICAL).all()
    assert result.validity == 1.0
    torch.testing.assert_close(after, before.sign() / 2, atol=0.05, rtol=0)


def test_noise_may_move_a_value_but_not_undo_the_way():
    """The generator moves every value towards its class by far more than this tolerance."""
    _, _, result = reached("minimal", "boundary", 0.002, goal=0.4)
    assert result.verdicts[::2] == ("flipped",) * 4  # from class 0 into class 1
    back = Still(cohort(class_means((8, 8)), 8).x)  # sees the unedited images whatever it is shown
    _, _, result = reached("minimal", "boundary", 0.002, goal=0.4, reviewer=back)
    assert result.verdicts == ("unstable",) * 8


def test_volumes_come_to_a_value():
    _, after, result = reached("minimal", "boundary", 0.01, space=(8, 8, 8))
    assert result.validity == 1.0
    assert (after.abs() <= 1).all()


@pytest.mark.parametrize(("target", "sign"), [(0, -1), (2, 1)])
def test_a_value_can_be_sent_out_of_the_tolerance(target, sign):
    before, after, result = reached("minimal", "boundary", 0.2, target)
    assert result.validity == 1.0
    already = sign * before > 1
    assert torch.equal(after[already], before[already])
    torch.testing.assert_close(after[~already], torch.full((4,), float(sign)), atol=0.01, rtol=0)


def test_values_do_not_depend_on_the_batch():
    _, one, _ = reached("morph", "boundary", 0.01, batch_size=3)
    _, all_, _ = reached("morph", "boundary", 0.01)
    torch.testing.assert_close(one, all_, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "valid"), [("gradient-attack", 1.0), ("additive-map", 1.0), ("fastdime", 0.0), ("maskdime", 0.0)]
)
def test_published_methods_run_on_a_value_and_are_told_when_they_go_too_far(name, valid):
    _, after, result = reached(name, "boundary", 0.06)
    assert result.validity == valid
    assert torch.equal(after.abs() <= 1, result.margin_after > 0)


class Labelled:
    """The toys' generator, with classes that are as many as those of a value or of a classifier."""

    def __init__(self, classes):
        self.inner, self.classes = ClassGaussian(class_means((8, 8)), False), classes
        self.schedule, self.shape = self.inner.schedule, self.inner.shape

    def __call__(self, x_t, t, label=None):
        assert label is None
        return self.inner(x_t, t)


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_of_a_generator_are_not_those_of_a_value(classes):
    means = class_means((8, 8))
    near = Near(Value((8, 8)), 0.1, 0.05)
    result = explain(cohort(means, 4), near, Labelled(classes), 1, depth="boundary")
    assert result.validity == 1.0
    assert (result.consent == 0).all()


def test_a_value_has_no_reference():
    means = class_means((8, 8))
    three = cohort(means, 4), Near(Value((8, 8)), 0.1, 0.05), ClassGaussian(means, False)
    with pytest.raises(InputError, match="reference: expected none with Near, whose typical margin is fixed, got a"):
        explain(*three, 1, reference=cohort(means, 20))


def test_what_is_no_value_or_no_tolerance_is_refused():
    with pytest.raises(InputError, match="tolerance: expected a positive number, got 0"):
        Near(Mean(), 0.3, 0.0)
    with pytest.raises(InputError, match=r"regressor: expected one value an image, got shape \(2, 16\)"):
        Near(torch.nn.Flatten(), 0.3, 0.1)(torch.zeros(2, 1, 4, 4))
