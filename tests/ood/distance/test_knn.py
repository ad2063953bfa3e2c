"""The distance to the k-th neighbour of features of length 1."""

import pytest
import torch
from torch.nn import functional

from cfx.core.errors import InputError
from cfx.models.features import PooledFeatures
from cfx.ood import build_detector, fit
from tests.ood.classifiers import Table, cnn, flat
from tests.ood.detectors import cohort, images
from tests.ood.oracles import theirs


@pytest.mark.parametrize("k", [1, 7])
def test_it_is_pytorch_oods(k):
    z = torch.randn(120, 16, generator=torch.Generator().manual_seed(0))
    table = Table(z)
    other = theirs("KNN", None, k=k).fit_features(z[:80], torch.zeros(80).long()).predict_features(z[80:])
    mine = fit(
        table.cohort(slice(0, 80)), build_detector("knn", k=k), features=table, calibration=table.cohort(slice(80, 81))
    )
    torch.testing.assert_close(mine.score(table.cohort(slice(80, None))).score.double(), other, atol=7.5e-6, rtol=0)


def test_by_hand_and_length_does_not_count():
    table = Table(torch.tensor([[1.0, 0.0], [0.0, 9.0], [-2.0, 0.0], [0.5, 0.0], [3.0, 3.0]]))
    fitted = fit(
        table.cohort(slice(0, 3)), build_detector("knn", k=2), features=table, calibration=table.cohort(slice(3, 4))
    )
    near = ((1 - 0.5**0.5) ** 2 + 0.5) ** 0.5
    assert fitted.score(table.cohort(slice(3, 5))).score.tolist() == pytest.approx([2**0.5, near], abs=1e-6)


def test_layers_are_joined_with_the_same_weight():
    own, x = cohort(30), images(4)
    layers = [lambda v: v.flatten(1), lambda v: 100 * v[..., :2].flatten(1)]
    found = fit(own, "knn", features=lambda v: [f(v) for f in layers]).score(x).score
    joined = fit(own, "knn", features=lambda v: torch.cat([functional.normalize(f(v), dim=1) for f in layers], 1))
    torch.testing.assert_close(found, joined.score(x).score)


def test_a_score_is_of_its_image_alone_and_an_image_that_is_known_is_near():
    fitted = fit(cohort(60), build_detector("knn", k=1), features=flat, batch_size=64)
    alone = fit(cohort(60), build_detector("knn", k=1), features=flat, batch_size=1)
    x = images(9, seed=4)
    assert torch.equal(fitted.score(x).score, alone.score(x).score)
    score = fitted.score(cohort(60)).score
    assert 25 <= int((score == 0).sum()) <= 30  # those it is fitted to
    assert fitted.score(x).nfe_features.tolist() == [1] * 9


@pytest.mark.parametrize("space", [(8, 8), (6, 6, 6)])
def test_on_features_of_a_network(space):
    own, x, net = cohort(40, space=space), images(3, space=space), cnn(len(space))
    pooled = fit(own, "knn", features=PooledFeatures(net)).score(x).score
    torch.testing.assert_close(pooled, fit(own, "knn", classifier=net).score(x).score)


def test_there_have_to_be_so_many_neighbours():
    with pytest.raises(InputError, match="k: expected at most the 10 images it is fitted to, got 11"):
        fit(cohort(20), build_detector("knn", k=11), features=flat)
    with pytest.raises(InputError, match="k: expected the number of a neighbour, 1 or more, got 0"):
        build_detector("knn", k=0)
