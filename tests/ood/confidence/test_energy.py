"""The free energy of logits."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.ood import build_detector, fit
from tests.ood.classifiers import Table, cnn, labelled
from tests.ood.detectors import images
from tests.ood.oracles import theirs


def energy(classifier, cohort, x, **settings):
    return fit(cohort, build_detector("energy", **settings), classifier=classifier).score(x).score


@pytest.mark.parametrize("temperature", [0.5, 1.0, 10.0])
def test_it_is_pytorch_oods(temperature):
    x, net = images(9), cnn().eval()
    other = theirs("EnergyBased", net, t=temperature)(x).detach()
    torch.testing.assert_close(energy(net, labelled(12), x, temperature=temperature), other, atol=1e-6, rtol=1e-6)


def test_of_equal_logits_it_is_known_and_at_no_temperature_it_is_the_largest():
    table = Table(torch.tensor([[1.0, 1.0], [0.0, 3.0], [2.0, 0.0], [0.0, 0.0]]))
    own = table.cohort()
    assert energy(table, own, table.cohort())[0].item() == pytest.approx(-1 - torch.tensor(2.0).log().item())
    cold = energy(table, own, table.cohort(), temperature=1e-3)
    assert cold.tolist() == pytest.approx([-1, -3, -2, 0], abs=1e-3)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_is_positive(temperature):
    with pytest.raises(InputError, match="temperature: expected a positive number"):
        build_detector("energy", temperature=temperature)
