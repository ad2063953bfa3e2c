"""Networks trained apart, and one counted several times: by weights, and by answers."""

import pytest
import torch
from torch import nn

from cfx.confounder.apart import check_answers, check_weights
from cfx.confounder.intervention import NEEDED, Scores
from cfx.core.errors import InputError


def seeded(seed: int, norm: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 2), *([nn.BatchNorm1d(2)] if norm else []))


def answers(networks: list[nn.Module]) -> list[torch.Tensor]:
    return [f.eval()(torch.ones(1, 3)).detach() for f in networks]


def scores(columns: list[torch.Tensor]) -> Scores:
    y = torch.arange(4) % 2
    score = {arm: torch.stack(columns, 1) + k for k, arm in enumerate(NEEDED)}
    return Scores(torch.arange(4), y, y >= 0, score, {}, "identity")


@pytest.mark.parametrize("norm", [False, True])
def test_equal_weights_are_named_by_group(norm: bool) -> None:
    mixed = [seeded(k, norm) for k in (0, 1, 0, 2, 1)]
    with pytest.raises(InputError, match=r"classifiers\[0, 2\]; classifiers\[1, 4\] are equal, with the same weights"):
        check_weights(mixed, answers(mixed))


def test_other_seeds_other_statistics_and_functions_are_apart() -> None:
    apart = [seeded(k) for k in range(4)]
    check_weights(apart, answers(apart))
    first, second = seeded(0, norm=True), seeded(0, norm=True)
    second[1].running_mean += 1.0  # type: ignore[index, operator]
    check_weights([first, second], answers([first, second]))
    check_weights([lambda x: x, lambda x: x], [torch.ones(1, 1)] * 2)


def test_equal_answers_are_one_network_unless_they_are_mere_decisions() -> None:
    a, b = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.1, 0.2, 0.3, 0.4 + 1e-6])
    check_answers(scores([a, b]))
    with pytest.raises(InputError, match=r"classifiers\[0, 2\] are equal, with the same answers"):
        check_answers(scores([a, b, a.clone()]))
    decided = scores([torch.zeros(4)] * 2)
    check_answers(Scores(decided.row, decided.y, decided.ok, dict.fromkeys(NEEDED, torch.zeros(4, 2)), {}, "identity"))
