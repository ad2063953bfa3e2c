"""DUQ asks the centroids that its network was trained with."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.models import adapt
from cfx.ood import fit
from tests.ood.classifiers import cnn, labelled
from tests.ood.detectors import images

RBF = {"name": "rbf", "width": 4, "sigma": 0.5}


def duq(dims=2):
    net = cnn(dims, head=RBF)
    net.head.centroids.normal_()
    return net


@pytest.mark.parametrize("space", [(8, 8), (6, 6, 6)])
def test_it_is_the_order_of_the_largest_kernel(space):
    net, x = duq(len(space)), images(12, space=space)
    scores = [fit(labelled(20, space=space), "duq", classifier=net, batch_size=b).score(x) for b in (64, 1)]
    torch.testing.assert_close(scores[0].score, scores[1].score, atol=1e-4, rtol=1e-4)
    largest = net.eval()(x).exp().amax(1).detach()
    torch.testing.assert_close((-scores[0].score).exp(), largest, atol=1e-5, rtol=1e-4)
    assert scores[0].nfe_classifier.tolist() == [1] * 12


def test_a_wrapped_network_is_found():
    net, x = duq(), images(4)
    found = fit(labelled(20), "duq", classifier=adapt(net, pixels={"range": (0, 1)})).score(x).score
    torch.testing.assert_close(found, -net.eval()((x + 1) / 2).amax(1).detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("classifier", [cnn(), cnn(head="cosine"), lambda x: x.flatten(1)[:, :2]])
def test_a_network_without_centroids_is_told_so(classifier):
    with pytest.raises(InputError, match=r"classifier: expected one trained with centroids \(objective duq"):
        fit(labelled(20), "duq", classifier=classifier)
