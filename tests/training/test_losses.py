"""Losses against closed forms and against other people's."""

import pytest
import torch
from monai.losses import FocalLoss
from torch.nn import functional

from cfx.training.losses import (
    absolute_error,
    binary_cross_entropy,
    cross_entropy,
    focal,
    hinge,
    kernel_entropy,
    kl_standard,
    min_snr_weight,
    nt_xent,
    soft_dice,
    squared_error,
    svls,
    unit_slope,
)

PREDICTIONS = ["epsilon", "v", "x0"]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_weighs_the_image_error_by_the_clipped_snr(prediction):
    alpha = torch.tensor([0.999, 0.9, 0.5, 0.01], dtype=torch.float64)
    sigma = (1 - alpha**2).sqrt()
    # squared error in prediction space, for a unit squared error of the image
    factor = {"epsilon": (alpha / sigma) ** 2, "v": 1 / sigma**2, "x0": torch.ones(4)}[prediction]
    expected = ((alpha / sigma) ** 2).clamp(max=5)
    assert torch.allclose(min_snr_weight(alpha, sigma, prediction, 5.0) * factor, expected, rtol=1e-9)
    assert torch.equal(min_snr_weight(alpha, sigma, prediction, None), torch.ones_like(alpha))


def test_min_snr_is_finite_at_zero_snr():
    zero, one = torch.tensor([0.0]), torch.tensor([1.0])
    assert min_snr_weight(zero, one, "v", 5.0).tolist() == [0.0]
    assert min_snr_weight(zero, one, "epsilon", 5.0).tolist() == [1.0]


def test_kl_of_a_normal_to_the_standard_one():
    mean, std = torch.randn(3, 2, 4, 4), torch.rand(3, 2, 4, 4) + 0.1
    pair = torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(*pair).flatten(1).sum(1)
    assert torch.allclose(kl_standard(mean, std), expected, rtol=1e-4)


def test_errors_are_means_over_what_a_row_holds():
    a = torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]])
    b = torch.tensor([[[0.0, 1.0]], [[0.0, 4.0]]])
    assert squared_error(a, b).tolist() == [2.5, 8.0]
    assert absolute_error(a, b).tolist() == [1.5, 2.0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_smoothed_targets(smoothing):
    logits, y = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    target = (1 - smoothing) * functional.one_hot(y, 3) + smoothing / 3
    expected = -(target * logits.log_softmax(1)).sum(1)
    assert torch.allclose(cross_entropy(logits, y, smoothing), expected, atol=1e-6)


def test_binary_cross_entropy_is_that_of_two_logits():
    logit, y = torch.randn(6, 1), torch.tensor([0, 1, 1, 0, 1, 0])
    pair = torch.cat([torch.zeros_like(logit), logit], 1)
    for smoothing in (0.0, 0.2):
        assert torch.allclose(
            binary_cross_entropy(logit, y[:, None], smoothing), cross_entropy(pair, y, smoothing), atol=1e-6
        )
    assert binary_cross_entropy(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4).bool()).tolist() == pytest.approx(
        [0.6931472, 0.6931472]
    )


class TestDice:
    def test_known_overlaps(self):
        p = torch.tensor([[[1.0, 1.0, 0.0, 0.0]], [[0.5, 0.5, 0.5, 0.5]], [[0.0, 0.0, 0.0, 0.0]]])
        m = torch.tensor([[[1, 0, 0, 0]], [[1, 1, 0, 0]], [[0, 0, 0, 0]]]).bool()
        assert soft_dice(p, m, smooth=0.0)[:2].tolist() == pytest.approx([2 / 3, 0.5])
        assert soft_dice(p, m).tolist() == pytest.approx([3 / 4, 3 / 5, 1.0])

    def test_it_is_monais(self):
        from monai.losses import DiceLoss

        p, m = torch.rand(4, 2, 5, 6, 3), torch.rand(4, 2, 5, 6, 3) > 0.6
        theirs = DiceLoss(smooth_nr=1.0, smooth_dr=1.0, reduction="none")(p, m.float()).flatten(1).mean(1)
        assert torch.allclose(1 - soft_dice(p, m), theirs, atol=1e-6)

    def test_an_empty_region_asks_for_less(self):
        logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
        (1 - soft_dice(logits.sigmoid(), torch.zeros(1, 1, 4, 4).bool())).sum().backward()
        assert (logits.grad > 0).all()


class TestContrast:
    def test_with_all_views_as_keys_it_is_simclrs(self):
        a, b, tau = torch.randn(5, 7), torch.randn(5, 7), 0.3
        z = functional.normalize(torch.cat([a, b]), dim=1)
        alike = (z @ z.T / tau).fill_diagonal_(-torch.inf)
        simclr = functional.cross_entropy(alike, torch.arange(10).roll(5), reduction="none")
        eye = torch.eye(5, dtype=torch.bool)
        keys, own = torch.cat([a, b]), torch.cat([eye, eye], 1)
        mine = torch.cat([nt_xent(a, b, keys, own, tau), nt_xent(b, a, keys, own, tau)])
        assert torch.allclose(mine, simclr, atol=1e-5)

    def test_known_values(self):
        z = torch.tensor([[2.0, 0.0]])
        none = torch.zeros(1, 3, dtype=torch.bool)
        same = nt_xent(z, z, z.repeat(3, 1), none, 0.5)
        apart = nt_xent(z, 5 * z, torch.tensor([[0.0, 1.0]]).repeat(3, 1), none, 1.0)
        assert same.item() == pytest.approx(torch.tensor(4.0).log().item())
        assert apart.item() == pytest.approx(torch.tensor(1 + 3 / torch.e).log().item())


class TestKernels:
    def test_the_entropy_is_torchs(self):
        kernels, y = torch.rand(6, 4), torch.randint(0, 4, (6,))
        theirs = functional.binary_cross_entropy(kernels, functional.one_hot(y, 4).float(), reduction="none").mean(1)
        assert torch.allclose(kernel_entropy(kernels.log(), y), theirs, atol=1e-5)

    def test_it_and_its_gradient_stay_finite_at_a_centroid_and_far_from_all(self):
        log_k = torch.tensor([[0.0, 0.0], [-1e4, -1e4]], requires_grad=True)
        loss = kernel_entropy(log_k, torch.tensor([0, 1]))
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert torch.isfinite(log_k.grad).all()
        assert (log_k.grad[1] <= 0).all()  # a row far from its centroid is drawn to it, however far it is

    def test_the_slope_of_a_linear_function_is_its_weights(self):
        w, x = torch.randn(1, 3, 3), torch.randn(4, 1, 3, 3).requires_grad_(True)
        found = unit_slope((w * x).flatten(1).sum(1), x)
        assert torch.allclose(found, (w.norm() - 1).square().expand(4))


def test_hinge_is_free_beyond_one():
    assert hinge(torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -2.0])).item() == 0
    assert hinge(torch.tensor([0.0, 2.0]), torch.tensor([0.0, -2.0])).item() == pytest.approx(0.5)


def test_the_focal_loss_is_cross_entropy_at_zero_and_looks_away_from_what_is_right():
    logits, y = torch.randn(7, 4, dtype=torch.float64), torch.arange(7) % 4
    assert torch.allclose(focal(logits, y, 0.0), cross_entropy(logits, y))
    p = logits.softmax(1).gather(1, y[:, None])[:, 0]
    assert torch.allclose(focal(logits, y, 2.0), -((1 - p) ** 2) * p.log())
    theirs = FocalLoss(use_softmax=True, to_onehot_y=True, gamma=2.0)(logits, y[:, None])
    assert float(4 * theirs) == pytest.approx(float(focal(logits, y, 2.0).mean()), rel=1e-6)
    sure = torch.tensor([[60.0, 0.0]], requires_grad=True)
    focal(sure, torch.tensor([0]), 0.5).sum().backward()
    assert sure.grad.isfinite().all()


def test_smoothing_of_other_classes_alone_is_another_epsilon():
    """eps / (k - 1) on every other class is torch's eps k / (k - 1)."""
    logits, y, k, eps = torch.randn(6, 5), torch.arange(6) % 5, 5, 0.08
    target = torch.full((6, k), eps / (k - 1)).scatter_(1, y[:, None], 1 - eps)
    expected = -(target * logits.log_softmax(1)).sum(1)
    assert torch.allclose(cross_entropy(logits, y, eps * k / (k - 1)), expected, atol=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_labels_are_smoothed_across_the_boundary_alone(dims):
    mask = torch.zeros(1, 1, *[8] * dims)
    mask[..., 4:] = 1
    found = svls(torch.cat([mask, 1 - mask], 1))
    assert torch.allclose(found.sum(1), torch.ones(1, *[8] * dims), atol=1e-6)  # at the borders too
    profile = found[(0, 0, *[0] * (dims - 1))]
    assert profile[[0, 1, 2, 5, 6, 7]].tolist() == pytest.approx([0, 0, 0, 1, 1, 1], abs=1e-6)
    assert 0 < float(profile[3]) < 0.5 < float(profile[4]) < 1
    assert float(profile[3] + profile[4]) == pytest.approx(1, abs=1e-6)
    point = torch.zeros(1, 1, *[5] * dims)
    point[(0, 0, *[2] * dims)] = 1
    smooth = svls(point)[0, 0]
    assert float(smooth[(2,) * dims]) == 0.5
    assert float(smooth.sum()) == pytest.approx(1, abs=1e-6)
    ratio = smooth[(1, *[2] * (dims - 1))] / smooth[(1, 1, *[2] * (dims - 2))]
    assert float(ratio) == pytest.approx(2.718281828**0.5, rel=1e-5)  # exp(-1/2) against exp(-1)
