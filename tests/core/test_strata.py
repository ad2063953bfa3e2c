"""Groups compared within strata: exact under the null, against known answers, and unmoved by what strata explain."""

import pytest
import torch
from scipy import stats

from cfx.core.strata import apart, permuted_p, placed, stratified_ranks


def test_ranks_and_places_are_those_of_scipy():
    v = torch.tensor([3.0, 1, 2, 2, 5, 2])
    torch.testing.assert_close(stratified_ranks(v) * 7, torch.from_numpy(stats.rankdata(v.numpy())))
    strata = torch.tensor([0, 0, 0, 1, 1, 1])
    torch.testing.assert_close(stratified_ranks(v, strata), torch.tensor([3, 1, 2, 1.5, 3, 1.5]).double() / 4)
    assert placed(torch.tensor([2.0, 9, 0]), v).tolist() == pytest.approx([2.5 / 6, 1, 0])


def test_the_p_value_is_the_one_of_all_permutations():
    g = torch.Generator().manual_seed(0)
    v, group = torch.randn(12, generator=g), torch.arange(12) < 5
    v[group] += 1
    r = stratified_ranks(v)
    exact = stats.mannwhitneyu(v[group].numpy(), v[~group].numpy(), alternative="greater", method="exact").pvalue
    assert permuted_p(lambda who: who @ r, group, draws=20_000) == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_what_strata_explain_is_no_difference(share):
    """Strata differ, and the group has more of one: ranks alone reject, within strata p is uniform."""
    p = []
    for seed in range(150):
        g = torch.Generator().manual_seed(seed)
        group = torch.arange(60) < 30
        strata = (torch.rand(60, generator=g) < torch.where(group, share, 0.5)).long()
        v = torch.randn(60, generator=g) + 3 * strata
        r = stratified_ranks(v, strata)
        p.append(permuted_p(lambda who, r=r: who @ r, group, strata, draws=99, seed=seed))
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_membership_stays_within_strata():
    strata, group, seen = torch.tensor([0, 1, 0, 1, 1]), torch.tensor([True, True, False, False, False]), []

    def statistic(who):
        seen.append(who)
        return who.sum(1)

    assert permuted_p(statistic, group, strata, draws=50) == 1
    every = torch.cat(seen)
    assert bool((every[:, strata == 0].sum(1) == 1).all())
    assert bool((every[:, strata == 1].sum(1) == 1).all())
    assert len(every.unique(dim=0)) == 6


def test_how_far_groups_are_apart_is_summed_over_strata():
    v, group = torch.tensor([1.0, 0, 0, 1, 1, 0]), torch.tensor([True, False, False, True, True, False])
    strata = torch.tensor([0, 0, 0, 1, 1, 1])
    found = apart(v, group, strata, group[None].double())
    assert float(found) == pytest.approx(1 * 2 / 3 + 1 * 2 / 3)
    assert float(apart(v, group, group.long(), group[None].double())) == 0  # nobody to compare with
