"""ACE: its cost, its gradient through the filter, its mask, and an edit of nothing."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from cfx.core.denoiser import Posterior
from cfx.core.errors import InputError
from cfx.counterfactual.baselines.ace import Ace, Filter
from tests.counterfactual.baselines.problems import Breaks, Indifferent, Still, part, problem, spent
from tests.counterfactual.toys import ClassGaussian, Cliff, Counted, Quadratic, class_means

SPACES = [(8, 8), (6, 6, 6)]
SHORT = Ace(iterations=6, step=16 / 255, steps=3)


class CountedBack(Counted):
    """Counts the rows that are propagated back, too."""

    backward = 0

    def __call__(self, x_t, t, label=None):
        q = super().__call__(x_t, t, label)
        if q.mean.requires_grad:
            q.mean.register_hook(self._note)
        return q

    def _note(self, g):
        self.backward += len(g)


class DetachedMean(ClassGaussian):
    def __call__(self, x_t, t, label=None) -> Posterior:
        q = super().__call__(x_t, t, label)
        return replace(q, mean=q.mean.detach())


def test_the_published_cost():
    p = part(problem((4, 4)), [0, 1])
    Ace().propose(p)
    cost = spent(p)
    assert cost["unet_forward"] == [255, 255]
    assert cost["unet_backward"] == [250, 250]
    assert cost["classifier_backward"] == [50, 50]
    assert cost["classifier"] == [51, 51]


@pytest.mark.parametrize("space", SPACES)
def test_counts_are_what_the_generator_saw(space):
    p = problem(space)
    p = replace(p, generator=CountedBack(ClassGaussian(class_means(space), conditional=False)))
    SHORT.propose(p)
    assert spent(p)["unet_forward"] == [6 * 3 + 3] * 4
    assert int(p.meter.unet_backward.sum()) == p.generator.backward == 4 * 6 * 3


@pytest.mark.parametrize("space", SPACES)
def test_the_batch_does_not_matter(space):
    whole = problem(space)
    found = SHORT.propose(whole)
    assert found.finite.all()
    assert found.image.abs().max() <= 1
    for rows in ([2], [3, 0]):
        got = SHORT.propose(part(whole, rows))
        torch.testing.assert_close(got.image, found.image[rows], atol=1e-5, rtol=0)
        torch.testing.assert_close(got.strength, found.strength[rows], atol=1e-5, rtol=0)


def test_it_reaches_the_margin_and_leaves_most_of_the_image_alone():
    p = problem((16, 16), margin=1e-3, classifier=Quadratic(class_means((16, 16))))
    found = Ace().propose(p)
    assert (p.judge.margin(found.image, p.target) >= 0).all()
    corner = found.image[..., 0] == p.x[..., 0]  # 0.5 from the blob's edge
    assert corner.all()


def test_the_gradient_is_that_of_the_filtered_image():
    p = problem()
    x = 0.5 * p.x
    g = Filter(p, 0.5, 3).log_gradient(x)
    h = 1e-2

    def score(image):
        logits = p.judge.logits(Filter(p, 0.5, 3)(image))  # the same first draw
        return logits.log_softmax(1).gather(1, p.target[:, None])[:, 0]

    for k in range(3):
        v = torch.randn(x.shape, generator=torch.Generator().manual_seed(k))
        v = v / v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        numeric = (score(x + h * v) - score(x - h * v)) / (2 * h)
        torch.testing.assert_close((g * v).flatten(1).sum(1), numeric, atol=2e-3, rtol=2e-2)


def test_the_filter_draws_anew_at_every_call_and_the_same_again_for_a_row():
    p = problem()
    first, again = Filter(p, 0.3, 4), Filter(p, 0.3, 4)
    found = [first(p.x) for _ in range(3)]
    for a, b in pairwise(found):
        assert (a - b).abs().amax((1, 2, 3)).min() > 1e-3
    assert all(torch.equal(image, again(p.x)) for image in found)
    other = Filter(replace(p, row=p.row + 1), 0.3, 4)
    assert not torch.equal(found[0], other(p.x))


def test_everything_inside_is_the_filter_and_nothing_inside_denoises_the_original():
    p = problem()
    edited = (p.x + 0.2).clamp(-1, 1)
    everywhere = torch.ones(4, 1, 8, 8, dtype=torch.bool)

    def filtered(*images):
        return Filter(p, 0.3, 4)(*images)

    assert torch.equal(filtered(edited, everywhere), filtered(edited))
    # what is inside makes no difference where nothing is
    assert torch.equal(filtered(edited, ~everywhere), filtered(p.x, ~everywhere))


@pytest.mark.parametrize("n", [8, 64, 128, 256])
def test_the_mask_is_a_dilated_change(n):
    x = torch.zeros(2, 2, n, n)
    edited = x.clone()
    edited[0, 1, n // 2, n // 2] = 1.0
    edited[0, 0, 1, 1] = 0.14
    half = {8: 1, 64: 3, 128: 7, 256: 15}[n]  # 15 of 128 voxels, 7 of 64
    expected = torch.zeros(1, n, n, dtype=torch.bool)
    expected[:, n // 2 - half : n // 2 + half + 1, n // 2 - half : n // 2 + half + 1] = True
    mask = Ace()._mask(x, edited)
    assert torch.equal(mask[0], expected)
    assert not mask[1].any()


@pytest.mark.parametrize("space", SPACES)
def test_an_edit_of_nothing_returns_the_image(space):
    p = problem(space, classifier=Indifferent())
    found = Ace(iterations=3).propose(p)
    assert found.finite.all()
    assert torch.equal(found.image, p.x)
    assert found.strength.tolist() == [0] * 4


def test_outside_of_what_may_change_nothing_does():
    allowed = torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    allowed[..., :5] = True
    p = problem(allowed=allowed)
    found = SHORT.propose(p)
    assert torch.equal(found.image[..., 5:], p.x[..., 5:])
    assert not torch.equal(found.image, p.x)


def test_distance_holds_back():
    p = problem(margin=100.0)
    free, held = (replace(SHORT, distance=d).propose(p).strength for d in (0.0, 10.0))
    assert (held < free).all()


def test_nan_is_named():
    p = problem(generator=Breaks((8, 8)))
    found = SHORT.propose(p)
    assert torch.equal(found.finite, ~p.generator.generator.bad)
    assert torch.equal(found.image[~found.finite], p.x[~found.finite])
    healthy = SHORT.propose(problem())
    torch.testing.assert_close(found.image[found.finite], healthy.image[found.finite], atol=1e-5, rtol=0)
    p = problem(classifier=Cliff((8, 8)))
    assert not SHORT.propose(p).finite.any()


def test_refuses_what_it_cannot_use():
    with pytest.raises(InputError, match="expected a diffusion model, got str"):
        Ace().propose(replace(problem(), generator="vae"))
    detached = DetachedMean(class_means((8, 8)), conditional=False)
    with pytest.raises(InputError, match="expected a posterior with a gradient"):
        Ace().propose(problem(generator=detached))
    with pytest.raises(InputError, match="expected a posterior with a gradient"):
        Ace().propose(problem(generator=Still(problem().x)))
