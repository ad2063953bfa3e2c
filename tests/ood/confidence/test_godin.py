"""Generalised ODIN looks at the numerator that its network learnt."""

import pytest
import torch
from torch import nn

from cfx.core.errors import InputError
from cfx.models import adapt
from cfx.models.heads import QUOTIENTS
from cfx.ood import build_detector, fit
from tests.ood.classifiers import cnn, labelled
from tests.ood.detectors import images


@pytest.mark.parametrize("head", QUOTIENTS)
def test_without_a_step_it_is_the_largest_numerator(head):
    net, x = cnn(head=head), images(7)
    found = fit(labelled(12), build_detector("godin", eps=0.0), classifier=net).score(x)
    net.eval()
    h = net.head.h(net.stages(x)[-1].flatten(2).mean(2)).detach()
    torch.testing.assert_close(found.score, -h.amax(1), atol=1e-5, rtol=1e-5)


def test_the_step_is_along_the_slope_of_the_numerator():
    net, x = cnn(head="cosine").eval(), images(5)

    def largest(images):
        return net.head.h(net.stages(images)[-1].flatten(2).mean(2)).amax(1)

    moving = x.clone().requires_grad_(True)
    (g,) = torch.autograd.grad(largest(moving).sum(), moving)
    found = fit(labelled(12), build_detector("godin", eps=0.03), classifier=net).score(x)
    torch.testing.assert_close(found.score, -largest(x + 0.03 * g.sign()).detach(), atol=1e-5, rtol=1e-5)
    assert found.nfe_classifier.tolist() == [2] * 5
    assert not net.head._forward_hooks


def test_with_a_divisor_of_one_it_is_a_linear_classifiers_largest_logit():
    net, x = cnn(head="inner"), images(5)
    net.head.g = nn.Sequential(nn.Linear(10, 1), nn.Flatten())
    nn.init.zeros_(net.head.g[0].weight)
    nn.init.ones_(net.head.g[0].bias)
    found = fit(labelled(12), build_detector("godin", eps=0.0), classifier=net).score(x)
    torch.testing.assert_close(found.score, -net.eval()(x).amax(1).detach(), atol=1e-5, rtol=1e-5)


def test_a_step_is_chosen_and_batches_do_not_matter_in_three_dimensions():
    space = (4, 4, 4)
    net, x = cnn(3, head="euclidean"), images(5, space=space)
    scores = [fit(labelled(12, space=space), "godin", classifier=net, batch_size=b).score(x).score for b in (64, 2)]
    torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-4)


def test_a_wrapped_network_is_found():
    net, x = cnn(head="cosine"), images(5)
    wrapped = adapt(net, pixels={"range": (0, 1)})
    found = fit(labelled(12), build_detector("godin", eps=0.0), classifier=wrapped).score(x)
    net.eval()
    h = net.head.h(net.stages((x + 1) / 2)[-1].flatten(2).mean(2)).detach()
    torch.testing.assert_close(found.score, -h.amax(1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("classifier", "said"),
    [
        (cnn(), r"expected one trained with a head of generalised ODIN \(network.head: one of .*got Cnn without"),
        (lambda x: x.flatten(1)[:, :3], "got function without"),
        (cnn(head="cosine", classes=1), "expected two or more logits for godin, got one"),
    ],
)
def test_other_networks_are_refused(classifier, said):
    with pytest.raises(InputError, match=said):
        fit(labelled(12), "godin", classifier=classifier)
