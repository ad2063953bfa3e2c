"""Overlapping classes, wrong labels and readers who disagree: drawn as the formulas say, and calibrated."""

import pytest
import torch
from pydantic import ValidationError
from scipy import stats

from cfx.data.brain import BrainConfig, Confounder, Population, load_brain, open_brain
from cfx.data.labels import MOST, severity_density

N = 20_000


def source(n=N, **more):
    """Labels and factors of many subjects; nothing is rendered."""
    return open_brain(BrainConfig(n=n, seed=5, size=16, **more))


def calibrated(p, y, bins=12):
    """Every bin's share of ones is its mean probability to within four standard errors."""
    edges = p.quantile(torch.linspace(0, 1, bins + 1).to(p)).unique()
    place = torch.bucketize(p, edges[1:-1])
    for k in place.unique():
        inside = place == k
        error = (p[inside] * (1 - p[inside])).mean().div(inside.sum()).sqrt()
        assert abs(p[inside].mean() - y[inside].float().mean()) <= 4 * error + 1e-6


@pytest.mark.parametrize("overlap", [0.0, 0.3, 1.0])
def test_densities_integrate_to_one_and_are_those_of_the_draws(overlap):
    s = (torch.arange(120_000).double() + 0.5) / 100_000
    people = Population(BrainConfig(seed=5, overlap=overlap))
    for k in (0, 1):
        density = severity_density(s, k, overlap)
        assert float(density.sum() / 100_000) == pytest.approx(1, abs=1e-4)
        drawn = people.severity(torch.arange(N), torch.full((N,), k)).double()
        assert float(drawn.max()) <= MOST + 1e-6
        for at in (0.05, 0.15, 0.4, 0.7, 0.9):
            share = float(density[s < at].sum() / 100_000)
            assert float((drawn < at).double().mean()) == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize("overlap", [0.2, 0.6, 1.0])
def test_the_best_classifier_errs_in_a_quarter_of_the_overlap(overlap):
    cohort = source(overlap=overlap)
    p = cohort.covariates["p_true"]
    assert float(((p > 0.5) != cohort.y).double().mean()) == pytest.approx(overlap / 4, abs=0.01)
    assert float(torch.minimum(p, 1 - p).mean()) == pytest.approx(overlap / 4, abs=0.01)
    calibrated(p, cohort.y)


def test_with_full_overlap_the_probability_is_linear_in_severity():
    cohort = source(overlap=1.0)
    torch.testing.assert_close(cohort.covariates["p_true"], cohort.covariates["severity"] / MOST, atol=1e-6, rtol=0)


def test_overlap_leaves_the_other_subjects_as_they_were():
    plain, more = source(), source(overlap=0.3)
    same = plain.covariates["severity"] == more.covariates["severity"]
    assert float(same.double().mean()) == pytest.approx(0.7, abs=0.01)
    assert plain.y.equal(more.y)
    assert plain.covariates["level"].equal(more.covariates["level"])
    assert "p_true" not in plain.covariates


def test_label_noise_flips_its_share_and_keeps_the_truth():
    plain, cohort = source(), source(label_noise=0.2)
    assert cohort.covariates["y_true"].equal(plain.y)
    wrong = cohort.y != plain.y
    assert float(wrong.double().mean()) == pytest.approx(0.2, abs=0.01)
    for k in (0, 1):
        assert float(wrong[plain.y == k].double().mean()) == pytest.approx(0.2, abs=0.015)
    torch.testing.assert_close(cohort.covariates["p_true"], 0.2 + 0.6 * plain.y)
    assert plain.covariates["severity"].equal(cohort.covariates["severity"])


CONFOUNDERS = (
    Confounder(kind="tag", q=0.8, share=0.6),
    Confounder(kind="scanner", q=0.7, share=0.5),
    Confounder(kind="shape", q=0.35),
    Confounder(kind="ruler", strength=0, q=0.9),
)


def test_planted_factors_tell_the_class_as_well():
    cohort = source(overlap=1.0, label_noise=0.1, confounders=CONFOUNDERS)
    p, alone = cohort.covariates["p_true"], source(overlap=1.0, label_noise=0.1).covariates["p_true"]
    calibrated(p, cohort.y)
    assert torch.minimum(p, 1 - p).mean() < torch.minimum(alone, 1 - alone).mean() - 0.02
    for c in CONFOUNDERS:  # within what each factor is, too
        amplitude = cohort.covariates[f"planted_{c.kind}"]
        for value in amplitude.unique():
            calibrated(p[amplitude == value], cohort.y[amplitude == value], bins=4)


def test_one_factor_by_hand():
    """Severity 0.3 of 1.2 and a tag, which 0.6 can have, with q = 0.8: odds (1 : 3) x (0.8 : 0.2)."""
    people = Population(BrainConfig(seed=5, overlap=1.0, confounders=CONFOUNDERS[:1]))
    index = torch.arange(N)
    f, p = people.factors(index), people.probability(index)
    odds = f.severity / (MOST - f.severity)
    odds = odds * torch.where(f.planted["tag"] > 0, 4.0, (0.6 * 0.2 + 0.4) / (0.6 * 0.8 + 0.4))
    torch.testing.assert_close(p, odds / (1 + odds), atol=1e-5, rtol=0)


def test_a_planted_label_is_certain_but_for_its_noise():
    cohort = source(confounders=(Confounder(kind="tag"),), label="tag", label_noise=0.1)
    torch.testing.assert_close(cohort.covariates["p_true"], 0.1 + 0.8 * (cohort.covariates["planted_tag"] > 0))
    calibrated(cohort.covariates["p_true"], cohort.y)


def test_readers_err_independently():
    cohort = source(readers={"count": 3, "error": 0.15})
    labels = torch.stack([cohort.covariates[f"reader_{k}"] for k in range(3)])
    assert cohort.covariates["p_true"].equal(cohort.y.float())
    for a in range(3):
        assert float((labels[a] != cohort.y).double().mean()) == pytest.approx(0.15, abs=0.01)
        for b in range(a):
            assert float((labels[a] == labels[b]).double().mean()) == pytest.approx(1 - 2 * 0.15 * 0.85, abs=0.01)


@pytest.mark.parametrize("spread", [0.5, 1.5])
def test_readers_draw_a_voxel_as_often_as_its_soft_value_says(spread):
    people = Population(BrainConfig(seed=5, readers={"count": 4000, "spread": spread}))
    soft = torch.tensor([0.0, 0.1, 0.3, 0.5, 0.8, 0.99]).view(1, 1, 2, 3)
    drawn = people._readings(soft, people.factors(torch.arange(1))).double().mean(1).flatten()
    wanted = stats.norm.cdf(0.9 * torch.logit(soft.double()).flatten() / spread)
    torch.testing.assert_close(drawn, torch.from_numpy(wanted), atol=0.03, rtol=0)


@pytest.mark.parametrize(("size", "dims"), [(64, 2), (32, 3)])
def test_readings_come_with_the_images(size, dims):
    config = BrainConfig(n=6, seed=5, size=size, dims=dims)
    plain, cohort = load_brain(config), load_brain(config.model_copy(update={"readers": config_readers(0.0)}))
    assert cohort.x.equal(plain.x)
    assert plain.readings is None
    assert cohort.readings.equal(plain.lesion.expand_as(cohort.readings))  # without spread all see the same
    apart = load_brain(config.model_copy(update={"readers": config_readers(2.0)})).readings
    assert apart.shape == cohort.readings.shape
    assert not apart[:, 0].equal(apart[:, 1])
    volumes = apart.flatten(2).sum(2)
    nested = [(a & b).sum() == min(a.sum(), b.sum()) for a, b in zip(apart[:, 0], apart[:, 1], strict=True)]
    assert all(nested)  # one edge moved outwards or inwards
    assert (volumes.float().std(1)[plain.y == 1] > 0).all()


def config_readers(spread):
    return BrainConfig(readers={"count": 2, "spread": spread}).readers


@pytest.mark.parametrize("more", [{"overlap": 1.2}, {"label_noise": 0.6}, {"readers": {"count": 0}}])
def test_what_means_nothing_is_refused(more):
    with pytest.raises(ValidationError):
        BrainConfig(**more)
