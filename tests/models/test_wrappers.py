"""Findings and values become classifiers, and a value is reached from either side."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.counterfactual import explain
from cfx.models.judge import Judge, margin_of
from cfx.models.wrappers import Finding, Near, Score
from tests.counterfactual.baselines.problems import Still
from tests.counterfactual.toys import ClassGaussian, Projection, class_means, cohort


def findings(x):
    """Three of them."""
    return x.flatten(1)[:, :3] - 0.1


def squeezed(x):
    """The same, without the row of a lone image."""
    return findings(x).squeeze()


@pytest.mark.parametrize("classifier", [findings, squeezed])
@pytest.mark.parametrize("n", [1, 6])
def test_a_finding_is_a_binary_classifier(classifier, n):
    x = torch.rand(n, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for k in range(3):
        logits = Judge(Finding(classifier, k)).logits(x)
        torch.testing.assert_close(logits, torch.stack([torch.zeros(n), findings(x)[:, k]], 1))
    for k in (-1, 3):
        with pytest.raises(InputError, match=rf"k: expected a finding in 0 .. 2, got {k}"):
            Judge(Finding(classifier, k)).logits(x)


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


class Value(Projection):
    """A linear regressor: about -0.5 for images of class 0, 0.5 for those of class 1."""

    def forward(self, x):
        return self.u(x)


def reached(method, depth, tolerance, target=1, goal=0.1, **more):
    """Values of eight images, half of them from either side, before and after, and the result; in tolerances."""
    space, n = more.pop("space", (8, 8)), more.pop("n", 8)
    means = class_means(space)
    value, data = Value(space), cohort(means, n)
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
    back = Still(cohort(class_means((8, 8)), 4).x)  # sees the unedited images, one batch, whatever it is shown
    _, _, result = reached("minimal", "boundary", 0.002, goal=0.4, reviewer=back, n=4)
    assert result.verdicts == ("unstable",) * 4


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
    assert result.consent.isnan().all()  # its classes are not asked for


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


def test_a_score_is_measured_in_spreads_above_its_threshold_and_has_no_classes():
    def score(x):
        return x.flatten(1).mean(1)

    x = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 1, 2, 2)
    asked = Score(score, 0.25, 0.5)
    assert asked(x)[:, 0].tolist() == pytest.approx([-2.5, -1.5, -0.5, 0.5, 1.5])
    judge = Judge(asked)
    assert judge.logits(x)[:, 1].tolist() == pytest.approx(asked(x)[:, 0].tolist())
    assert judge.labels(torch.zeros(5).long()) is None
    assert not judge.is_about(torch.zeros(5).long())
    assert not judge.speaks(lambda: None, 2)
    for threshold, spread in ((torch.inf, 1.0), (0.0, 0.0), (0.0, torch.nan)):
        with pytest.raises(InputError, match="scores that do not differ"):
            Score(score, threshold, spread)
    with pytest.raises(InputError, match="one number an image"):
        Score(lambda x: x, 0.0, 1.0)(x)
