"""Virtual-logit matching is the paper's formula, and is not fooled by features of something else."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from torch import nn

from cfx.core.errors import InputError
from cfx.models import adapt
from cfx.models.features import FeatureMaps, PooledFeatures
from cfx.ood import build_detector, fit
from tests.ood.classifiers import cnn, flat, labelled
from tests.ood.detectors import images
from tests.ood.oracles import theirs

VIM = build_detector("vim", dims=4)


def parts(net, own, x):
    """Weights, bias and features of fitted and new images."""
    pooled = PooledFeatures(net.eval())
    with torch.no_grad():
        z = [pooled(v).double().numpy() for v in (own, x)]
    return net.head.weight.detach().double().numpy(), net.head.bias.detach().double().numpy(), *z


def test_it_is_the_papers_formula():
    own, x, net = labelled(40), images(7), cnn()
    w, b, z, new = parts(net, own.x, x)
    u = -np.matmul(np.linalg.pinv(w), b)
    centred = z - u
    values, directions = np.linalg.eigh(centred.T @ centred / len(z))
    rest = directions[:, np.argsort(values * -1)[4:]]
    alpha = (z @ w.T + b).max(axis=-1).mean() / np.linalg.norm(centred @ rest, axis=-1).mean()
    virtual, logits = np.linalg.norm((new - u) @ rest, axis=-1) * alpha, new @ w.T + b
    found = fit(own, VIM, classifier=net, calibration=labelled(3, seed=1)).score(x)
    assert found.score.numpy() == pytest.approx(virtual - logsumexp(logits, axis=-1), abs=1e-3, rel=1e-4)
    probability = softmax(np.concatenate([logits, virtual[:, None]], 1), axis=1)[:, -1]
    assert found.score.sigmoid().numpy() == pytest.approx(probability, abs=1e-5)
    assert (found.nfe_features.tolist(), found.nfe_classifier.tolist()) == ([1] * 7, [0] * 7)


def test_it_is_pytorch_oods():
    own, x, net = labelled(40), images(7), cnn()
    w, b, z, new = (torch.from_numpy(v).float() for v in parts(net, own.x, x))
    other = theirs("ViM", None, d=4, w=w, b=b).fit_features(z, own.y).predict_features(new)
    found = fit(own, VIM, classifier=net, calibration=labelled(3, seed=1)).score(x)
    torch.testing.assert_close(found.score, other, atol=1e-3, rtol=1e-4)


def test_of_several_layers_the_last_is_read():
    own, x, net = labelled(40), images(5), cnn()
    scores = [fit(own, VIM, classifier=net, features=f).score(x).score for f in (None, FeatureMaps(net))]
    torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-4)


def test_a_binary_logit_is_the_second_of_two():
    one, own, x = cnn(classes=1), labelled(40), images(5)
    two = cnn(classes=2)
    state = one.state_dict()
    state["head.weight"] = torch.cat([torch.zeros_like(state["head.weight"]), state["head.weight"]])
    state["head.bias"] = torch.cat([torch.zeros(1), state["head.bias"]])
    two.load_state_dict(state)
    scores = [fit(own, VIM, classifier=net).score(x).score for net in (one, two)]
    torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("space", [(8, 8), (6, 6, 6)])
def test_any_module_that_ends_in_a_linear_layer(space):
    """Wrapped, and not of this package."""
    size = int(torch.tensor(space).prod())
    own, x = labelled(60, space=space), images(5, space=space)
    net = nn.Sequential(nn.Flatten(), nn.Linear(size, 12), nn.Tanh(), nn.Linear(12, 3))
    wrapped = adapt(net, pixels={"range": (0, 1)})
    scores = [fit(own, VIM, classifier=wrapped, batch_size=b).score(x).score for b in (64, 1)]
    torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-4)


def test_half_of_few_features_are_principal():
    vim = build_detector("vim")
    assert [vim._dims(n) for n in (10, 767, 768, 2048)] == [5, 383, 512, 1000]


class Twice(nn.Module):
    """A linear layer that is not the last."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 3)

    def forward(self, x):
        return 2 * self.last(x.flatten(1))


@pytest.mark.parametrize(
    ("settings", "networks", "said"),
    [
        (
            {},
            {"classifier": cnn(), "features": flat},
            r"features: expected the vectors that the classifier's last layer",
        ),
        ({}, {"classifier": Twice(), "features": flat}, "got others: W z . b is not its logits"),
        ({}, {"classifier": cnn(head="cosine")}, "expected one that ends in a torch.nn.Linear for vim, got Quotient"),
        ({}, {"classifier": lambda x: flat(x)[:, :3]}, "features: expected features=... beside a classifier"),
        ({}, {"classifier": lambda x: flat(x)[:, :3], "features": flat}, "torch.nn.Linear for vim, got none"),
        ({"dims": 10}, {"classifier": cnn()}, r"dims: expected 0 .. 9 principal directions of 10 features, got 10"),
    ],
)
def test_what_it_cannot_match_is_refused(settings, networks, said):
    with pytest.raises(InputError, match=said):
        fit(labelled(40), build_detector("vim", **settings), **networks)
