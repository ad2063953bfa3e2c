"""The squared Mahalanobis distance obeys its laws, and is pytorch-ood's but for the factor 2 N."""

import pytest
import torch
from scipy import stats

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.scores import auroc
from cfx.models.features import FeatureMaps
from cfx.ood import build_detector, fit
from cfx.ood.distance.mahalanobis import place
from tests.ood.classifiers import Table, cnn, flat, labelled
from tests.ood.detectors import cohort, images
from tests.ood.oracles import theirs

PLAIN = build_detector("mahalanobis", shrunk=False)
RELATIVE = build_detector("mahalanobis", relative=True)


def rows(n, d, seed=0, shift=0.0):
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    z[:, 0] += shift
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(99))
    return z @ mix


def fitted(table, n, y=None, **settings):
    """Fitted to the first n rows of a table of features and calibrated on the next."""
    return fit(
        table.cohort(slice(0, n), y), build_detector("mahalanobis", **settings), features=table,
        calibration=table.cohort(slice(n, n + 1)),
    )  # fmt: skip


def test_it_is_pytorch_oods_times_2n():
    table, y = Table(rows(300, 6)), torch.arange(200) % 3
    other = theirs("Mahalanobis", None).fit_features(table.values[:200], y).predict_features(table.values)
    mine = fitted(table, 200, y, shrunk=False).score(table.cohort()).score
    torch.testing.assert_close(mine, 2 * 200 * other, rtol=1e-3, atol=1e-3)


def test_of_normal_rows_it_is_chi_square_and_of_shifted_ones_noncentral():
    n, d, shift = 20000, 8, 1.5
    table = Table(torch.cat([rows(2 * n, d), rows(4000, d, 1), rows(4000, d, 2, shift)]))
    score = fitted(table, 2 * n, shrunk=False).score(table.cohort(slice(2 * n, None))).score.double()
    own, other = score[:4000], score[4000:]
    assert stats.kstest(own.numpy(), stats.chi2(d).cdf).pvalue > 0.01
    assert stats.kstest(other.numpy(), stats.ncx2(d, shift**2).cdf).pvalue > 0.01
    grid = torch.linspace(1e-6, 120, 60001, dtype=torch.float64)
    expected = float(
        torch.trapezoid(torch.from_numpy(stats.chi2(d).cdf(grid) * stats.ncx2(d, shift**2).pdf(grid)), grid)
    )
    found = float(auroc(score[None], torch.arange(8000)[None] >= 4000))
    assert found == pytest.approx(expected, abs=0.02)


def test_the_nearest_class_counts_and_labels_that_do_not_occur_do_not():
    centres = torch.tensor([[0.0, 0.0], [100.0, 0.0]])
    y = torch.arange(60) % 2
    table = Table(torch.cat([rows(60, 2) + centres[y], centres, (centres[:1] + centres[1:]) / 2]))
    by_class = fitted(table, 60, 5 * y).score(table.cohort(slice(60, None))).score
    assert by_class[:2].max() < 1 < 100 < by_class[2]
    together = fitted(table, 60).score(table.cohort(slice(60, None))).score
    assert together[2] < together[:2].min()


def test_distances_of_layers_add_and_are_told():
    own = labelled(60)
    halves = fit(own, "mahalanobis", features=lambda x: [x[..., :2, :2].flatten(1), x[..., 4:, 4:].flatten(1)])
    found = halves.score(images(5))
    ones = [
        fit(Cohort(own.x, ids=own.ids), "mahalanobis", features=f).score(images(5)).score
        for f in (lambda x: x[..., :2, :2].flatten(1), lambda x: x[..., 4:, 4:].flatten(1))
    ]
    unlabelled = fit(Cohort(own.x, ids=own.ids), "mahalanobis", features=halves.tools.features).score(images(5))
    torch.testing.assert_close(unlabelled.score, ones[0] + ones[1])
    assert set(found.statistics) == {"layer_0", "layer_1"}


def test_relative_is_less_the_distance_to_all():
    own, x = labelled(60), images(5)
    parts = [
        fit(c, build_detector("mahalanobis", relative=r), features=flat).score(x).score
        for c, r in ((own, False), (Cohort(own.x, ids=own.ids), False), (own, True))
    ]
    torch.testing.assert_close(parts[2], parts[0] - parts[1], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("space", [(8, 8), (6, 6, 6)])
def test_layers_of_a_classifier_and_its_own_features(space):
    net, own = cnn(len(space)), labelled(24, space=space)
    x = images(4, space=space)
    scores = [fit(own, "mahalanobis", features=FeatureMaps(net), batch_size=b).score(x).score for b in (64, 1)]
    torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-3)
    found = fit(own, "mahalanobis", classifier=net).score(x)
    assert (found.nfe_features.tolist(), found.nfe_classifier.tolist()) == ([1] * 4, [0] * 4)


def test_labels_of_several_findings_are_no_classes():
    assert place(torch.zeros(3, 2)) is None
    assert place(torch.tensor([7, 2, 7])).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fit(cohort(40), RELATIVE, features=flat), "cohort.y: expected one class label an image"),
        (lambda: fit(labelled(40), PLAIN, features=flat), "covariance with an inverse, got a singular one of 20 rows"),
        (lambda: fit(cohort(40), PLAIN, features=lambda x: 0 * x.flatten(1)), "features of layer 0: .*all the same"),
        (
            lambda: fit(labelled(3), "mahalanobis", features=flat, calibration=labelled(4, seed=1)),
            "cohort.y: expected more than one image of some class, got 3 classes of one each",
        ),
        (lambda: fit(cohort(40), "mahalanobis", features=FeatureMaps(cnn(), ("middle",))), "layers: expected some of"),
        (lambda: fit(cohort(40), "mahalanobis"), "features=... or classifier=..., got none"),
    ],
)  # fmt: skip
def test_what_has_no_distance_is_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()
