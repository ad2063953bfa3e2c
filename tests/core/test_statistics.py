import math

import pytest
import torch
from sklearn.metrics import average_precision_score

from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.core.statistics import average_precision, bootstrap_interval


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


def test_bootstrap_interval_of_a_mean_is_near_the_normal_one() -> None:
    values = normal((400,), seed=2, row=torch.arange(1), stream=0)[0] * 3 + 5
    low, high = bootstrap_interval(values)
    half = 1.96 * float(values.std()) / 20
    assert low == pytest.approx(float(values.mean()) - half, abs=0.05)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.05)


def test_bootstrap_interval_covers_at_its_level() -> None:
    sets = normal((60,), seed=3, row=torch.arange(300), stream=0)
    inside = [low <= 0 <= high for low, high in (bootstrap_interval(s, draws=400, seed=4) for s in sets)]
    assert 0.90 <= sum(inside) / len(inside) <= 0.98  # 95 % nominal, n = 60, 300 sets


def test_rows_stay_paired() -> None:
    pairs = torch.stack([torch.arange(1.0, 31), 2 * torch.arange(1.0, 31)], 1)
    low, high = bootstrap_interval(pairs, lambda p: p[..., 0].mean(1) / p[..., 1].mean(1))
    assert low == pytest.approx(0.5)
    assert high == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [{"values": torch.zeros(0)}, {"values": torch.zeros(3), "level": 1.5}])
def test_bad_input_is_named(bad: dict) -> None:
    with pytest.raises(InputError, match="expected"):
        bootstrap_interval(**bad)
