"""Distances between sets: closed forms, bias, coverage, and what the identity edit scores."""

import pytest
import torch
from scipy.linalg import sqrtm

from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.core.sets import frechet_distance, kernel_distance, split_distance


def draw(n: int, d: int, stream: int, seed: int = 0) -> torch.Tensor:
    return normal((d,), seed=seed, row=torch.arange(n), stream=stream).double()


def once(distance, a: torch.Tensor, b: torch.Tensor) -> float:
    ones = [torch.ones(1, len(x), dtype=torch.float64) for x in (a, b)]
    return float(distance(a, b, *ones)[0])


def with_moments(x: torch.Tensor, mean: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """The rows moved and mixed so that their sample mean and covariance are exactly `mean` and root root'."""
    centred = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(centred.T.cov()), centred.T, upper=False)
    return (root @ white).T + mean


def test_frechet_between_two_gaussians_of_independent_features() -> None:
    mean, a, b = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 0.5, 3.0])
    u = with_moments(draw(40, 3, 0), torch.zeros(3).double(), a.diag().double())
    v = with_moments(draw(60, 3, 1), mean, b.diag().double())
    assert once(frechet_distance, u, v) == pytest.approx(float(mean.square().sum() + (a - b).square().sum()))
    assert once(frechet_distance, v, u) == pytest.approx(once(frechet_distance, u, v))


def test_frechet_equals_the_matrix_root() -> None:
    u, v = draw(50, 6, 0) @ draw(6, 6, 2), draw(70, 6, 1) @ draw(6, 6, 3) + 0.3
    root = sqrtm(u.T.cov().numpy() @ v.T.cov().numpy()).real
    wanted = (u.mean(0) - v.mean(0)).square().sum() + u.T.cov().trace() + v.T.cov().trace() - 2 * root.trace()
    assert once(frechet_distance, u, v) == pytest.approx(float(wanted), rel=1e-8)


@pytest.mark.parametrize("n", [3, 5, 40])
def test_frechet_of_a_set_to_itself_and_to_its_shift_also_where_features_outnumber_rows(n: int) -> None:
    u = draw(n, 12, 0)
    assert once(frechet_distance, u, u) == pytest.approx(0, abs=1e-10)
    assert once(frechet_distance, u, u + 0.5) == pytest.approx(12 * 0.25)


def test_frechet_of_equal_distributions_is_biased_less_with_more_rows() -> None:
    few, many = (
        sum(once(frechet_distance, draw(n, 4, 2 * s), draw(n, 4, 2 * s + 1)) for s in range(40)) / 40 for n in (20, 80)
    )
    assert few > 0.2
    assert 2.5 < few / many < 6  # about 1 / n


def test_kernel_is_unbiased_and_frechet_is_not() -> None:
    pairs = [(draw(15, 3, 2 * s), draw(25, 3, 2 * s + 1)) for s in range(300)]
    found = torch.tensor([once(kernel_distance, u, v) for u, v in pairs])
    error = float(found.std()) / len(found) ** 0.5
    assert abs(float(found.mean())) < 3 * error
    shifted = torch.tensor([once(kernel_distance, u, v + 1) for u, v in pairs])
    assert float(shifted.mean()) > 30 * error
    closest = torch.tensor([once(frechet_distance, u, v) for u, v in pairs[:50]])
    assert float(closest.min()) > 0


def test_kernel_by_hand() -> None:
    u, v = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[1.0], [2.0]]).double()
    # pairs within: k(0, 1) = 1, k(1, 2) = 27; across: k(0, .) = 1 twice, k(1, 1) = 8, k(1, 2) = 27
    assert once(kernel_distance, u, v) == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_whole_weights_are_repeated_rows(distance) -> None:
    """For the means; the unbiased terms never pair a row with its own copy."""
    u, v = draw(10, 2, 0), draw(12, 2, 1)
    w = torch.ones(3, 10, dtype=torch.float64)
    ones = torch.ones(3, 12, dtype=torch.float64)
    w[1] *= 7  # only proportions matter
    w[2, 4:] = 0  # rows without weight are not there
    found = distance(u, v, w, ones)
    assert found[1] == pytest.approx(float(found[0]))
    assert found[2] == pytest.approx(once(distance, u[:4], v))


@pytest.mark.parametrize(("distance", "least"), [(frechet_distance, 0.90), (kernel_distance, 0.80)])
def test_interval_covers_what_the_estimator_gives_on_average(distance, least: float) -> None:
    sets = [(draw(120, 2, 2 * s), 1.3 * draw(120, 2, 2 * s + 1) + 0.7) for s in range(100)]
    found = [split_distance(u, v, distance, splits=4, draws=60, seed=s) for s, (u, v) in enumerate(sets)]
    mean = sum(e.value for e in found) / len(found)
    inside = sum(e.low <= mean <= e.high for e in found) / len(found)
    assert least <= inside < 1.0
    width = sum(e.high - e.low for e in found) / len(found)
    spread = float(torch.tensor([e.value for e in found]).std())
    assert width == pytest.approx(2 * 1.96 * spread, rel=0.25)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_the_identity_edit_scores_nought_plainly_but_not_in_split_form(distance) -> None:
    real, other = draw(80, 3, 0), draw(80, 3, 1)
    plain = once(distance, real, real)
    identity = split_distance(real, real, distance, splits=4, draws=20)
    fresh = split_distance(real, other, distance, splits=4, draws=20)  # other subjects of the same distribution
    assert plain <= 1e-10
    assert identity.value > plain
    assert abs(identity.value - fresh.value) < identity.high - identity.low


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_with_classes_the_identity_edit_loses_to_every_edit_that_arrives(distance) -> None:
    label = torch.arange(160) % 2
    towards = 3.0 * torch.tensor([1.0, 0.0, 0.0]).double()
    real = draw(160, 3, 0) + label[:, None] * towards
    arrived = real + (1 - 2 * label[:, None]) * towards
    halfway = real + 0.5 * (1 - 2 * label[:, None]) * towards
    more = {"label": label, "target": 1 - label, "splits": 3, "draws": 30}
    nothing, half, whole = (split_distance(real, e, distance, **more) for e in (real, halfway, arrived))
    assert whole.value < half.value < nothing.value
    assert whole.high < nothing.low


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_scans_of_one_subject_never_face_each_other(distance) -> None:
    """Two scans a subject, all but alike: halves that part them find a set that looks like its own subjects."""
    people = torch.arange(60).repeat_interleave(2)
    real, other = (draw(60, 6, s)[people] + 0.05 * draw(120, 6, 2 + s) for s in range(2))
    more = {"splits": 4, "draws": 20}
    apart = split_distance(real, real, distance, groups=people, **more)
    fresh = split_distance(real, other, distance, groups=people, **more)  # of other subjects, alike in distribution
    parted = split_distance(real, real, distance, **more)
    assert abs(apart.value - fresh.value) < apart.high - apart.low
    assert parted.value < apart.value
    assert parted.high - parted.low < apart.high - apart.low


def test_groups_of_one_row_are_rows_bit_for_bit() -> None:
    real, edited = draw(30, 2, 0), draw(30, 2, 1)
    plain = split_distance(real, edited, splits=2, draws=10)
    assert split_distance(real, edited, groups=torch.arange(30) * 2, splits=2, draws=10) == plain


def test_splits_and_draws_are_the_seeds() -> None:
    real, edited = draw(30, 2, 0), draw(30, 2, 1)
    first, again = (split_distance(real, edited, splits=2, draws=10, seed=5) for _ in range(2))
    assert first == again
    assert split_distance(real, edited, splits=2, draws=10, seed=6).value != first.value


def test_bad_input_is_named() -> None:
    real = draw(6, 2, 0)
    with pytest.raises(InputError, match="neither"):
        split_distance(real, real, label=torch.zeros(6, dtype=torch.long))
    with pytest.raises(InputError, match="at least two rows"):
        split_distance(real[:3], real[:3])
    with pytest.raises(InputError, match="groups: expected shape"):
        split_distance(real, real, groups=torch.zeros(3, dtype=torch.long))
