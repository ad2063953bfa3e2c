"""The largest probability, whatever shape the logits have."""

import torch

from cfx.ood import fit
from cfx.ood.confidence.mcp import doubt
from tests.ood.classifiers import Table, cnn, labelled
from tests.ood.detectors import images


def test_it_is_one_less_the_largest_probability():
    x = images(5)
    found = fit(labelled(12), "mcp", classifier=(net := cnn())).score(x)
    torch.testing.assert_close(found.score, 1 - net.eval()(x).softmax(1).amax(1), atol=1e-6, rtol=1e-5)
    assert found.nfe_classifier.tolist() == [1] * 5


def test_a_binary_logit_is_of_two_classes():
    table = Table(torch.tensor([[0.0], [2.0], [-3.0], [5.0]]))
    found = fit(table.cohort(slice(0, 2)), "mcp", classifier=table, calibration=table.cohort(slice(2, 3)))
    torch.testing.assert_close(found.score(table.cohort()).score, torch.sigmoid(-table.values[:, 0].abs()))


def test_very_sure_answers_are_told_apart():
    p = torch.tensor([[0.0, 40.0], [0.0, 60.0]]).double().softmax(1)
    assert 0 < doubt(p)[1] < doubt(p)[0] < 1e-17
    assert 1 - p.amax(1)[0] == 0


def test_in_three_dimensions():
    space = (4, 4, 4)
    assert fit(labelled(12, space=space), "mcp", classifier=cnn(3)).score(images(2, space=space)).score.shape == (2,)
