"""Crossed inference: closed forms of balanced designs, its size under a true null, and sign flips."""

import pytest
import torch
from scipy import stats

from cfx.core.crossed import Effect, crossed_effect, sign_flip
from cfx.core.errors import InputError


def normals(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_balanced_data_give_the_classical_variance() -> None:
    k, n = 8, 30
    e = normals(k, 1, seed=0) + normals(1, n, seed=1) + normals(k, n, seed=2)
    residual = e - e.mean(1, keepdim=True) - e.mean(0, keepdim=True) + e.mean()
    s_e = residual.square().sum() / ((k - 1) * (n - 1))
    expected = e.mean(1).var() / k + e.mean(0).var() / n - s_e / (k * n)
    found = crossed_effect(e)
    assert found.value == pytest.approx(float(e.mean()))
    assert found.error**2 == pytest.approx(float(expected), rel=1e-9)


def test_without_variance_between_networks_it_is_the_t_test_on_images() -> None:
    rows = normals(1, 40, seed=3) + 0.2
    found = crossed_effect(rows.expand(6, 40))
    reference = stats.ttest_1samp(rows[0].numpy(), 0)
    assert found.p_value == pytest.approx(float(reference.pvalue), rel=1e-6)
    low, high = reference.confidence_interval()
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6)


def test_without_variance_between_images_it_is_the_t_test_on_networks() -> None:
    seeds = normals(7, 1, seed=4) + 0.5
    found = crossed_effect(seeds.expand(7, 50))
    assert found.p_value == pytest.approx(float(stats.ttest_1samp(seeds[:, 0].numpy(), 0).pvalue), rel=1e-6)


def test_one_network_is_the_t_test_on_its_images() -> None:
    row = normals(1, 40, seed=7) + 0.2
    assert crossed_effect(row).p_value == pytest.approx(float(stats.ttest_1samp(row[0].numpy(), 0).pvalue), rel=1e-6)


def test_a_donor_of_all_images_counts_once() -> None:
    donor = torch.arange(60) // 10  # six donors, each of ten images
    part = normals(6, seed=5)[donor].expand(4, 60)
    found = crossed_effect(part, donors=[(part, donor)])
    assert found.error == pytest.approx(float(normals(6, seed=5).std() / 6**0.5), rel=1e-6)


@pytest.mark.parametrize(
    ("networks", "images", "donors", "s_seed", "s_donor"),
    [(8, 60, 60, 0.0, 0.0), (8, 60, 20, 0.1, 0.3), (8, 100, 50, 0.3, 0.5), (16, 60, 30, 0.1, 0.5)],
)
def test_size_under_a_true_null(networks: int, images: int, donors: int, s_seed: float, s_donor: float) -> None:
    g, draws, rejected, pooled = torch.Generator().manual_seed(networks + images + donors), 300, 0, 0
    for _ in range(draws):
        own = torch.randn(networks, 1, generator=g) * s_seed + torch.randn(1, images, generator=g) * 0.5
        noise = 0.3 * torch.randn(networks, images, generator=g)
        value = torch.randn(2 * donors, generator=g) * s_donor + 0.1 * torch.randn(networks, 2 * donors, generator=g)
        other = torch.randint(0, donors, (images,), generator=g)
        same = torch.randint(0, donors, (images,), generator=g) + donors
        parts = [(own + noise + value[:, other], other), (-value[:, same], same)]
        e = parts[0][0] + parts[1][0]
        rejected += crossed_effect(e, donors=parts).p_value < 0.05
        pooled += bool(stats.ttest_1samp(e.flatten().numpy(), 0).pvalue < 0.05)
    low, high = stats.binom.interval(0.99, draws, 0.05)
    assert low <= rejected <= high
    assert pooled > 4 * high  # what treating all values as independent does


def test_scans_that_are_alike_are_one_image() -> None:
    e, donor = normals(5, 30, seed=11) + 0.3, torch.arange(30) // 3
    twice = e.repeat_interleave(2, dim=1)
    people, lent = torch.arange(30).repeat_interleave(2) + 7, donor.repeat_interleave(2)
    for k in (5, 1):
        once, grouped = crossed_effect(e[:k]), crossed_effect(twice[:k], groups=people)
        assert (grouped.value, grouped.error, grouped.df) == pytest.approx((once.value, once.error, once.df))
        once = crossed_effect(e[:k], donors=[(e[:k], donor)])
        grouped = crossed_effect(twice[:k], donors=[(twice[:k], lent)], groups=people)
        assert (grouped.value, grouped.error, grouped.df) == pytest.approx((once.value, once.error, once.df))
    assert crossed_effect(e, groups=torch.arange(30)) == crossed_effect(e)


def test_size_under_a_true_null_with_several_scans_a_subject() -> None:
    people, draws, rejected, as_images = torch.arange(30).repeat_interleave(4), 300, 0, 0
    for i in range(draws):
        own = normals(1, 30, seed=10 * i)[:, people] * 0.5 + normals(1, 120, seed=10 * i + 1) * 0.2
        e = own + 0.05 * normals(6, 1, seed=10 * i + 2) + 0.3 * normals(6, 120, seed=10 * i + 3)
        rejected += crossed_effect(e, groups=people).p_value < 0.05
        as_images += crossed_effect(e).p_value < 0.05
    low, high = stats.binom.interval(0.99, draws, 0.05)
    assert low <= rejected <= high
    assert as_images > 3 * high


def test_equivalence_is_claimed_at_the_margin_no_more_often_than_alpha() -> None:
    g, draws, claimed = torch.Generator().manual_seed(9), 400, 0
    for _ in range(draws):
        e = 0.3 + 0.2 * torch.randn(8, 1, generator=g) + 0.5 * torch.randn(1, 60, generator=g)
        claimed += crossed_effect(e.expand(8, 60)).p_equivalence(0.3) < 0.05
    assert claimed <= stats.binom.ppf(0.99, draws, 0.05)
    tight = crossed_effect(0.01 * normals(8, 60, seed=1))
    assert tight.p_equivalence(0.3) < 1e-6


def test_an_effect_of_exactly_zero_and_one_without_error() -> None:
    zero, one = crossed_effect(torch.zeros(3, 5)), crossed_effect(torch.ones(3, 5))
    assert (zero.p_value, zero.p_equivalence(0.1), zero.low) == (1.0, 0.0, 0.0)
    assert (one.p_value, one.p_equivalence(0.1), one.p_equivalence(2.0)) == (0.0, 1.0, 0.0)


def test_sign_flips_of_few_values_are_counted_and_of_many_drawn() -> None:
    assert sign_flip(torch.ones(8)) == 2 / 2**8
    assert sign_flip(torch.tensor([1.0, -1.0])) == 1.0
    assert sign_flip(torch.ones(40), draws=999) == 1 / 1000
    values = normals(30, seed=2) + 0.4
    exact = float(stats.wilcoxon(values.numpy()).pvalue)  # another exact test of symmetry, for the order of magnitude
    assert exact / 5 < sign_flip(values) < exact * 5


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="e: expected"):
        crossed_effect(torch.zeros(5, 1))
    with pytest.raises(InputError, match="e: expected finite"):
        crossed_effect(torch.full((2, 5), torch.nan))
    with pytest.raises(InputError, match="donors: expected parts that add up"):
        crossed_effect(torch.zeros(2, 5), donors=[(torch.ones(2, 5), torch.arange(5))])
    with pytest.raises(InputError, match="margin"):
        Effect(0.0, 1.0, 5.0).p_equivalence(0.0)
    with pytest.raises(InputError, match="values"):
        sign_flip(torch.zeros(0))
