"""Scores against scikit-learn, scipy and their definitions."""

import math

import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    mean_pinball_loss,
    roc_auc_score,
)
from sklearn.metrics import log_loss as sklearn_log_loss

from cfx.core.random import normal, uniform
from cfx.core.scores import (
    auroc,
    average_precision,
    balanced_accuracy,
    class_weights,
    crps,
    dice,
    false_alarms_at,
    log_loss,
    pairwise_dice,
    pinball_loss,
)


def draw(n: int, m: int, stream: int = 0) -> torch.Tensor:
    return normal((n,), seed=1, row=torch.arange(m), stream=stream).double()


def test_area_under_the_curve_is_that_of_scikit_learn_with_ties_and_weights() -> None:
    score, positive = (2 * draw(40, 6)).round(), draw(40, 6, 1) > 0.3  # many ties
    weight = (3 * uniform((40,), seed=1, row=torch.arange(6), stream=2).double()).round()  # some are 0
    plain, weighted = auroc(score, positive), auroc(score, positive, weight)
    for i in range(6):
        s, y, w = score[i].numpy(), positive[i].numpy(), weight[i].numpy()
        assert float(plain[i]) == pytest.approx(roc_auc_score(y, s))
        assert float(weighted[i]) == pytest.approx(roc_auc_score(y, s, sample_weight=w))


def test_area_under_the_curve_counts_pairs_and_half_the_ties() -> None:
    y = torch.tensor([False, False, True, True])
    assert float(auroc(torch.tensor([0.1, 0.4, 0.35, 0.8]), y)) == 0.75
    assert float(auroc(torch.zeros(4), y)) == 0.5
    assert float(auroc(torch.tensor([1.0, 2.0, 2.0, 3.0]), y)) == 0.875
    assert math.isnan(float(auroc(torch.zeros(4), torch.zeros(4, dtype=torch.bool))))


def test_one_score_under_many_weightings_is_each_by_itself() -> None:
    score, positive, weight = draw(30, 1)[0].round(), draw(30, 1, 1)[0] > 0, draw(30, 5, 2).abs()
    found = auroc(score, positive, weight)
    alone = torch.stack([auroc(score, positive, w) for w in weight])
    assert torch.equal(found, alone)
    repeated = torch.arange(30).repeat_interleave(torch.arange(30) % 3)  # a weight of k is k rows
    counts = (torch.arange(30) % 3).double()
    assert float(auroc(score, positive, counts)) == float(auroc(score[repeated], positive[repeated]))


def test_average_precision_equals_scikit_learn_with_ties() -> None:
    score = (normal((200,), seed=1, row=torch.arange(20), stream=0) * 4).round() / 4  # many ties
    truth = normal((200,), seed=1, row=torch.arange(20), stream=1) + score > 1
    found = average_precision(score, truth)
    for i in range(20):
        assert found[i] == pytest.approx(average_precision_score(truth[i].numpy(), score[i].numpy()), abs=1e-6)


def test_average_precision_of_a_constant_map_is_the_base_rate() -> None:
    truth = torch.arange(50)[None] < 7
    assert average_precision(torch.zeros(1, 50), truth)[0] == pytest.approx(7 / 50)


def test_average_precision_without_a_positive_is_nan() -> None:
    assert math.isnan(float(average_precision(torch.rand(1, 5), torch.zeros(1, 5, dtype=torch.bool))[0]))


def test_balanced_accuracy_is_that_of_scikit_learn_for_every_labelling() -> None:
    y = (3 * uniform((50,), seed=3, row=torch.arange(4), stream=0)).long()
    says = (3 * uniform((50,), seed=3, row=torch.arange(4), stream=1)).long()
    found = balanced_accuracy(says == y, y)
    assert found.tolist() == pytest.approx([balanced_accuracy_score(a, b) for a, b in zip(y, says, strict=True)])
    assert float(balanced_accuracy(says[0] == y[0], y[0])) == float(found[0])


def test_no_decision_is_half_right() -> None:
    y = torch.tensor([0, 0, 0, 1])
    assert float(balanced_accuracy(torch.tensor([1.0, 1.0, 0.5, 0.5]), y)) == pytest.approx((2.5 / 3 + 0.5) / 2)


def test_class_weights_give_every_class_the_same_sum() -> None:
    y = torch.tensor([0, 0, 0, 0, 0, 1, 1, 7, 7, 7])
    w = class_weights(y)
    assert [float(w[y == k].sum()) for k in (0, 1, 7)] == pytest.approx([10 / 3] * 3)
    assert float(w.mean()) == pytest.approx(1)
    assert class_weights(y[None] == 1)[0, 5:7].tolist() == [2.5, 2.5]
    without = class_weights(torch.tensor([[0, 1], [1, 1]]))  # a labelling that lacks a class
    assert without[0].tolist() == [1, 1]
    assert bool(without[1].isnan().all())


@pytest.mark.parametrize("space", [(6, 5), (4, 3, 5)])
def test_dice_is_the_f1_of_voxels(space: tuple[int, ...]) -> None:
    a, b = (normal((1, *space), seed=4, row=torch.arange(3), stream=s) > 0.3 * s for s in range(2))
    expected = [f1_score(u.flatten().numpy(), v.flatten().numpy()) for u, v in zip(a, b, strict=True)]
    assert dice(a, b).tolist() == pytest.approx(expected)
    assert torch.equal(dice(a, b), pairwise_dice(a, b).diagonal())


def test_dice_counts_the_overlap() -> None:
    a, b = torch.zeros(3, 1, 4, 4, dtype=torch.bool), torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    a[0, 0, :2], b[0, 0, 1:3] = True, True
    a[1, 0, 0] = True
    assert dice(a, b).tolist() == [0.5, 0.0, 1.0]
    assert pairwise_dice(a, b[:2]).tolist() == [[0.5, 0.0], [0.0, 0.0], [0.0, 1.0]]


def test_log_loss_is_that_of_scikit_learn() -> None:
    p, y = draw(4, 20).softmax(1), torch.arange(20) % 4
    assert float(log_loss(p, y).mean()) == pytest.approx(sklearn_log_loss(y.numpy(), p.numpy()))
    assert torch.equal(log_loss(p.view(4, 5, 4), y.view(4, 5)).flatten(), log_loss(p, y))
    assert log_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([0])).tolist() == [math.inf]


@pytest.mark.parametrize("tau", [0.25, 0.5, 0.9])
def test_pinball_loss_is_that_of_scikit_learn_and_finds_the_quantile(tau: float) -> None:
    y = draw(4000, 1)[0]
    q = torch.linspace(-2, 2, 401).double()
    mean = pinball_loss(q[:, None], y, tau).mean(1)
    assert float(mean[100]) == pytest.approx(mean_pinball_loss(y.numpy(), q[100].expand(4000).numpy(), alpha=tau))
    assert float(q[mean.argmin()]) == pytest.approx(float(y.quantile(tau)), abs=0.01)


def test_false_alarms_are_those_of_the_roc_curve_of_scikit_learn() -> None:
    from sklearn.metrics import roc_curve

    for stream, ties in ((0, 1e-6), (1, 0.5)):
        score = (draw(1, 300, stream)[:, 0] / ties).round() * ties
        positive = draw(1, 300, stream + 5)[:, 0] + 0.5 * score > 0
        fpr, tpr, _ = roc_curve(positive.numpy(), score.numpy(), drop_intermediate=False)
        for found in (0.5, 0.95, 1.0):
            assert math.isclose(false_alarms_at(score, positive, found), fpr[(tpr >= found - 1e-12).argmax()])


def test_there_is_no_false_alarm_rate_without_negatives() -> None:
    assert math.isnan(false_alarms_at(torch.ones(3), torch.ones(3, dtype=torch.bool), 0.95))


def test_crps_is_its_definition_over_all_pairs() -> None:
    x, y = draw(6, 9), draw(1, 9, 3)[:, 0]
    pairs = (x[:, :, None] - x[:, None]).abs()
    error = (x - y[:, None]).abs().mean(1)
    assert torch.allclose(crps(x, y), error - pairs.mean((1, 2)) / 2)
    assert torch.allclose(crps(x, y, fair=True), error - pairs.sum((1, 2)) / (6 * 5) / 2)
    assert torch.allclose(crps(x[:, :1], y), error.new_tensor((x[:, 0] - y).abs().tolist()))


def test_fair_crps_does_not_depend_on_the_number_of_draws() -> None:
    """On average over all pairs of four values it is that of the four."""
    values, y = torch.tensor([0.0, 1.0, 3.0, 7.0]).double(), torch.tensor(2.0).double()
    pairs = torch.cartesian_prod(values, values)
    assert float(crps(pairs, y.expand(16), fair=True).mean()) == pytest.approx(float(crps(values, y)))
