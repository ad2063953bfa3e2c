"""Dropout patterns are of the seed, not of the image, and leave everything else of a network alone."""

import pytest
import torch
from torch import nn

from cfx.core.errors import InputError
from cfx.models.dropout import dropped
from cfx.ood import build_detector, fit
from tests.models.kinds import state
from tests.ood.classifiers import cnn, labelled
from tests.ood.detectors import images

FEW = build_detector("mc-dropout", patterns=4)


def test_it_is_the_doubt_of_the_mean_of_its_patterns():
    net, x = cnn(dropout=0.4, norm="batch"), images(5)
    found = fit(labelled(12), FEW, classifier=net, seed=3).score(x)
    members = []
    for t in range(4):
        with torch.no_grad(), dropped(net.eval(), 3, t):
            members.append(net(x).double().softmax(1))
    torch.testing.assert_close(found.score, (1 - torch.stack(members).mean(0).amax(1)).float(), atol=1e-6, rtol=1e-5)
    assert found.nfe_classifier.tolist() == [4] * 5
    assert (members[0] - members[1]).abs().max() > 1e-3


def test_a_score_is_of_its_image_alone_and_of_the_seed():
    net, x = cnn(dropout=0.4, norm="batch"), images(6)
    whole = fit(labelled(12), FEW, classifier=net).score(x).score
    one = fit(labelled(12), FEW, classifier=net, batch_size=1).score(x.flip(0)).score.flip(0)
    torch.testing.assert_close(whole, one, atol=1e-5, rtol=1e-5)
    assert not torch.equal(whole, fit(labelled(12), FEW, classifier=net, seed=1).score(x).score)


def test_the_network_is_left_as_it_was():
    net = cnn(dropout=0.4, norm="batch")
    before, modes = {k: v.clone() for k, v in net.state_dict().items()}, state(net)
    fit(labelled(12), FEW, classifier=net).score(images(3))
    assert state(net) == modes
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not any(m._forward_hooks for m in net.modules())


def test_in_three_dimensions():
    space = (4, 4, 4)
    fitted = fit(labelled(12, space=space), FEW, classifier=cnn(3, dropout=0.2))
    assert fitted.score(images(2, space=space)).score.shape == (2,)


@pytest.mark.parametrize(
    ("classifier", "said"),
    [
        (cnn(), "got Cnn only with probability 0"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), "got Sequential without any"),
        (lambda x: x.flatten(1)[:, :2], "got function without any"),
    ],
)
def test_a_network_without_dropout_is_told_so(classifier, said):
    with pytest.raises(InputError, match=f"classifier: expected a network with dropout modules .*{said}"):
        fit(labelled(12), "mc-dropout", classifier=classifier)


def test_somebody_has_to_be_asked():
    with pytest.raises(InputError, match="patterns: expected at least 1 pattern of dropout, got 0"):
        build_detector("mc-dropout", patterns=0)
