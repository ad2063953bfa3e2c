"""Several classifiers are as unsure as their mean."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.ood import fit
from tests.ood.classifiers import cnn, labelled
from tests.ood.detectors import images


def test_members_that_are_alike_are_one():
    net, x = cnn(), images(6)
    found = fit(labelled(12), "ensemble", ensemble=[net] * 3).score(x)
    torch.testing.assert_close(found.score, fit(labelled(12), "mcp", classifier=net).score(x).score)
    assert found.nfe_classifier.tolist() == [3] * 6


def test_it_is_the_doubt_of_their_mean():
    nets, x = [cnn(seed=s).eval() for s in range(3)], images(6)
    p = torch.stack([net(x).softmax(1) for net in nets]).mean(0)
    found = fit(labelled(12), "ensemble", ensemble=nets).score(x).score
    torch.testing.assert_close(found, (1 - p.amax(1)).detach(), atol=1e-6, rtol=1e-5)


def test_members_of_other_classes_are_refused():
    with pytest.raises(InputError, match=r"ensemble: expected classifiers of the same classes, got some of \[2, 3\]"):
        fit(labelled(12), "ensemble", ensemble=[cnn(), cnn(classes=2)])
    with pytest.raises(InputError, match="ensemble: expected two or more classifiers"):
        fit(labelled(12), "ensemble")
