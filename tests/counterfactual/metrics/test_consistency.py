"""The laws of composition and reversibility on edits that keep or break them by a known amount."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.counterfactual import Minimal, explain
from cfx.counterfactual.method import Problem
from cfx.counterfactual.metrics import Nullable, composition, null_drift, reversibility
from cfx.counterfactual.metrics.measure import source_class
from cfx.counterfactual.morph import Morph
from tests.counterfactual.metrics.hand_made import result_of
from tests.counterfactual.toys import ClassGaussian, Linear, class_means, cohort

X = torch.linspace(-0.5, 0.5, 3).view(3, 1, 1, 1).expand(3, 1, 4, 4).contiguous()


def test_an_exact_null_edit_composes_to_nothing() -> None:
    assert torch.equal(composition(X, lambda x: x.clone()), torch.zeros(3, 10))


def test_a_drift_adds_up_cycle_by_cycle() -> None:
    found = composition(X, lambda x: x + 0.01, cycles=4)
    torch.testing.assert_close(found, torch.tensor([0.01, 0.02, 0.03, 0.04]).expand(3, 4), atol=1e-6, rtol=0)
    most = composition(X, lambda x: x + 0.01, cycles=2, distance=lambda a, b: 2 * (a - b).abs().flatten(1).amax(1))
    torch.testing.assert_close(most[:, 1], torch.full((3,), 0.04), atol=1e-6, rtol=0)


def test_there_and_back() -> None:
    there = result_of(X, X + 0.3)
    assert (reversibility(there, result_of(X + 0.3, X)) == 0).all()
    torch.testing.assert_close(reversibility(there, result_of(X + 0.3, X + 0.1)), torch.full((3,), 0.1))


def test_the_way_back_leads_to_the_class_of_the_image() -> None:
    there = result_of(X, X + 0.3)
    asked = []

    def back(images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        asked.append(target.tolist())
        return images - 0.2

    torch.testing.assert_close(reversibility(there, back), torch.full((3,), 0.1))
    assert asked == [[0, 0, 0]]


@pytest.mark.parametrize("space", [(8, 8), (8, 8, 8)])
@pytest.mark.parametrize("method", [Minimal(), Morph()])
def test_null_edits_as_the_engine_makes_them_come_back(space: tuple[int, ...], method: Nullable) -> None:
    means = class_means(space)
    data, generator, classifier = cohort(means, 5), ClassGaussian(means), Linear(space)
    there = explain(data, classifier, generator, method=method, seed=3, row=torch.tensor([4, 0, 9, 2, 7]))
    found = null_drift(there, classifier, generator, method, batch_size=2)
    assert found.shape == (5,)
    assert found.max() <= 1e-5
    torch.testing.assert_close(found, null_drift(there, classifier, generator, method, batch_size=5), atol=1e-6, rtol=0)


def test_the_largest_change_of_the_null_edits_asked_for_is_told() -> None:
    there, seen = result_of(X, X + 0.3), []

    class Drifts:
        def null(self, problem: Problem) -> torch.Tensor:
            seen.append((problem.source.tolist(), problem.target.tolist(), problem.goal.whole, problem.seed))
            problem.x[:, :, 0, 0] += 0.1 * (1 + problem.row).view(-1, 1)
            return problem.x

    found = null_drift(there, Constant(), None, Drifts(), cycles=3, batch_size=2)
    torch.testing.assert_close(found, 0.3 * (1 + there.row.float()), atol=1e-6, rtol=0)
    assert len(seen) == 6
    assert seen[0] == (source_class(there)[:2].tolist(), there.target[:2].tolist(), True, there.seed)


class Constant(torch.nn.Module):
    """Two logits that nothing changes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(x), 2)


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="back"):
        reversibility(result_of(X, X + 0.3), result_of(X, X))
    with pytest.raises(InputError, match="cycles"):
        composition(X, lambda x: x, cycles=0)
