"""Problems in closed form for the diffusion baselines, and generators and classifiers that fail in known ways."""

from dataclasses import replace

import torch
from torch import nn

from cfx.core.denoiser import Posterior
from cfx.core.schedule import Schedule
from cfx.counterfactual.method import Meter, Problem
from cfx.models.goal import Goal
from cfx.models.judge import Judge
from tests.counterfactual.toys import ClassGaussian, Counted, CountedClassifier, Linear, class_means, draw

ROW = torch.tensor([5, 0, 12, 3])


def problem(space=(8, 8), classifier=None, generator=None, margin=1.0, **more) -> Problem:
    """Four images, alternately of class 0 and 1, to be carried to the other class; evaluations are counted twice."""
    means = class_means(space)
    source = torch.arange(4) % 2
    x, target = draw(means, source, seed=1), 1 - source
    judge = Judge(CountedClassifier(classifier or Linear(space)))
    generator = Counted(generator or ClassGaussian(means, conditional=False))
    before = judge.margin(x, target)
    judge.classifier.rows = 0
    goal = Goal(torch.full((4,), margin))
    return Problem(x, source, target, goal, before, ROW, 9, judge, generator, Meter(4), **more)


def part(whole: Problem, rows) -> Problem:
    """Some rows as a problem of their own."""
    rows = torch.as_tensor(rows)
    per_row = {k: getattr(whole, k)[rows] for k in ("x", "source", "target", "goal", "before", "row")}
    allowed = None if whole.allowed is None else whole.allowed[rows]
    return replace(whole, **per_row, allowed=allowed, meter=Meter(len(rows)))


def spent(p: Problem) -> dict[str, list[int]]:
    """The meter's counts; what generator and classifier counted themselves must agree in sum."""
    assert int(p.meter.unet_forward.sum()) == p.generator.rows
    assert int(p.meter.classifier.sum()) == p.judge.classifier.rows
    assert int(p.meter.classifier_backward.sum()) == p.judge.classifier.gradients
    kinds = ("unet_forward", "unet_backward", "classifier", "classifier_backward")
    return {kind: getattr(p.meter, kind).tolist() for kind in kinds}


def assert_same(a, b) -> None:
    """Two proposals agree."""
    torch.testing.assert_close(a.image, b.image, atol=1e-5, rtol=0)
    assert torch.equal(a.strength, b.strength)
    assert torch.equal(a.finite, b.finite)


def laws(method, space) -> None:
    """What every method must keep: the batch does not matter, forbidden voxels stay, counts are right, NaN is named."""
    whole = problem(space)
    before = whole.x.clone()
    found = method.propose(whole)
    counted = spent(whole)
    assert torch.equal(whole.x, before)
    assert found.finite.all()
    assert found.image.isfinite().all()
    assert found.image.abs().max() <= 1
    for rows in ([2], [3, 0]):
        alone = part(whole, rows)
        got = method.propose(alone)
        torch.testing.assert_close(got.image, found.image[rows], atol=1e-5, rtol=0)
        assert torch.equal(got.strength, found.strength[rows])
        assert alone.meter.unet_forward.tolist() == [counted["unet_forward"][r] for r in rows]
    allowed = torch.zeros(4, 1, *space, dtype=torch.bool)
    allowed[..., :5] = True
    kept = method.propose(problem(space, allowed=allowed)).image
    assert torch.equal(kept[..., 5:], before[..., 5:])
    assert not torch.equal(kept, before)


def assert_names_nan(method, space=(8, 8)) -> None:
    """A row whose generator breaks is given up, keeps its image, and leaves the others as they are."""
    p = problem(space, generator=Breaks(space))
    found = method.propose(p)
    bad = p.x.flatten(1)[:, 0] > 0
    assert bad.any()
    assert not bad.all()
    assert torch.equal(found.finite, ~bad)
    assert torch.equal(found.image[bad], p.x[bad])
    whole = method.propose(problem(space))
    torch.testing.assert_close(found.image[~bad], whole.image[~bad], atol=1e-5, rtol=0)
    # every row of the broken kind cost one scale and no more
    assert set(p.meter.unet_forward[bad].tolist()) == {int(method_cost(method, space))}


def method_cost(method, space) -> int:
    """Generator evaluations of one scale."""
    p = problem(space, margin=-100.0)
    p = replace(p, before=torch.full((4,), -200.0))
    method.propose(p)
    return int(p.meter.unet_forward[0])


class Breaks:
    """NaN in rows that are bright in their first voxel, as long as all rows are together: through the first scale."""

    classes, shape = None, None

    def __init__(self, space) -> None:
        self.inner = ClassGaussian(class_means(space), conditional=False)
        self.schedule = self.inner.schedule
        self.bad = problem(space).x.flatten(1)[:, 0] > 0

    def __call__(self, x_t, t, label=None) -> Posterior:
        q = self.inner(x_t, t, label)
        if len(x_t) < 4:
            return q
        return replace(q, mean=q.mean.masked_fill(self.bad.view(-1, *[1] * (x_t.ndim - 1)), torch.nan))


class Still:
    """A generator that sees the same images in whatever it is shown, row by row of a batch as large as they are."""

    classes, shape = None, None

    def __init__(self, x) -> None:
        self.x, self.schedule = x, Schedule.from_diffusers({"timestep_spacing": "trailing"})

    def __call__(self, x_t, t, label=None) -> Posterior:
        alpha, sigma = self.schedule.alpha(t, x_t), self.schedule.sigma(t, x_t)
        return Posterior(self.x.expand_as(x_t), x_t, alpha, sigma)


class Indifferent(nn.Module):
    """Logits that depend on the image, with a gradient of exactly 0."""

    def forward(self, x):
        return (0 * x).flatten(1).sum(1)
