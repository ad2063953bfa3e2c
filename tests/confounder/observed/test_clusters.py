"""Clusters of explanation maps: planted ones are found, noise has one, and metadata is tested at its level."""

import pytest
import torch
from scipy import stats
from torch import nn

from cfx.confounder.observed import clusters
from cfx.confounder.observed.clusters import associations, cluster
from cfx.core.errors import InputError
from cfx.core.random import normal, permutation, uniform


def noise(n, space=(32, 32), seed=0):
    return normal((1, *space), seed=seed, row=torch.arange(n), stream=0)


def with_corner(n=120, every=3, space=(32, 32)):
    """Noise maps, of which each third one has evidence in a corner."""
    maps = noise(n, space)
    hot = torch.arange(n) % every == 0
    maps[(hot, slice(None), *[slice(0, 6)] * len(space))] += 3
    return maps, hot


@pytest.mark.parametrize("space", [(32, 32), (20, 24, 16)])
def test_planted_clusters_are_found(space):
    maps, hot = with_corner(space=space)
    found = cluster(maps)
    assert found.sizes == (80, 40)
    assert torch.equal(found.labels == 1, hot)
    assert int(found.eigenvalues.diff().argmax()) == 1
    assert found.gap == pytest.approx(float(found.eigenvalues[2] - found.eigenvalues[1]), abs=1e-6)
    torch.testing.assert_close(found.mean[1], maps[hot].mean(0))
    torch.testing.assert_close(found.mean[0], maps[~hot].mean(0))


def test_disjoint_graphs_have_an_eigenvalue_of_zero_each():
    maps = torch.zeros(48, 1, 16, 16)
    for k in range(4):
        maps[k::4, :, 4 * k : 4 * k + 4] = 1 + 0.1 * noise(12, (4, 16), seed=k)
    found = cluster(maps, neighbours=5)
    assert found.sizes == (12, 12, 12, 12)
    assert torch.equal(found.labels, torch.arange(48) % 4)  # of equal size: by their first row
    torch.testing.assert_close(found.eigenvalues[:4], torch.zeros(4), atol=1e-6, rtol=0)


def test_noise_is_one_cluster():
    assert [len(cluster(noise(100, seed=s)).sizes) for s in range(10)] == [1] * 10


def test_the_order_of_the_maps_makes_no_difference():
    maps, _ = with_corner()
    maps[1::3, :, 20:26, 20:26] += 3  # and a third kind
    order = permutation(len(maps), seed=1, stream=0)
    found, again = cluster(maps), cluster(maps[order])
    assert len(found.sizes) == len(again.sizes) == 3
    same = found.labels[:, None] == found.labels
    assert torch.equal(same[order][:, order], again.labels[:, None] == again.labels)
    torch.testing.assert_close(found.eigenvalues, again.eigenvalues, atol=1e-5, rtol=0)


def test_scale_and_negative_evidence_of_a_map_make_no_difference():
    maps, _ = with_corner(60)
    scale = 10 ** (4 * uniform((1, 1, 1), seed=0, row=torch.arange(60), stream=1) - 2)
    changed = torch.where(maps > 0, maps * scale, maps * 7)
    assert torch.equal(cluster(maps).labels, cluster(changed).labels)


def test_maps_without_evidence_are_a_cluster_and_no_failure():
    maps, hot = with_corner(60)
    maps[hot] = -1.0
    found = cluster(maps)
    assert torch.equal(found.labels == 1, hot)
    assert all(torch.isfinite(t).all() for t in (found.embedding, found.eigenvalues, found.mean))


def test_a_classifier_that_reads_a_tag_in_some_images_is_seen_in_its_gradients():
    n = 90
    x = 0.1 * noise(n, (24, 24), seed=4).abs()
    tag = torch.arange(n) % 3 == 0
    x[tag, :, 1:5, 1:5] = 1.0
    x[~tag, :, 10:16, 10:16] = 0.8 + 0.1 * noise(int((~tag).sum()), (6, 6), seed=5)
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(576, 1))
    weight = torch.zeros(24, 24)
    weight[1:5, 1:5], weight[10:16, 10:16] = 1.0, 0.5
    nn.init.constant_(net[0].weight, 1 / 9)
    net[3].weight.data = weight.view(1, -1)
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(net(x).sum(), x)
    found = cluster((gradient * x).detach())
    assert torch.equal(found.labels == 1, tag)
    first, second = associations(
        found.labels, {"tag": tag, "age": normal((n,), seed=6, row=torch.arange(1), stream=0)[0]}
    )
    assert (first.name, second.name) == ("tag", "age")
    assert first.p_holm < 0.01 < second.p_value


def test_known_values_of_the_measures():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    half = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
    number = torch.tensor([1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0])
    found = {a.name: a for a in associations(labels, {"same": labels, "none": half, "number": number})}
    assert found["same"].value == pytest.approx(1.0)  # one bit
    assert found["none"].value == pytest.approx(0.0, abs=1e-12)
    assert found["number"].value == pytest.approx(8 / 10)
    assert found["none"].p_value == 1.0
    assert (found["number"].measure, found["same"].measure) == ("correlation ratio", "mutual information")


def test_the_p_of_an_association_holds_its_level():
    n, sets = 60, 200
    maps, _ = with_corner(n)
    labels = cluster(maps).labels
    u = uniform((2, n), seed=7, row=torch.arange(sets), stream=0)
    p = [
        [a.p_value for a in sorted(associations(labels, columns, permutations=39, seed=s), key=lambda a: a.name)]
        for s, columns in enumerate({"a": (v[0] * 3).long(), "b": v[1]} for v in u)
    ]
    low, high = stats.binom.interval(0.99, sets, 0.05)  # two looks
    rejected = (torch.tensor(p) <= 0.05).sum(0)
    assert rejected[0] <= high  # categories tie, which only makes p larger
    assert low <= rejected[1] <= high


def test_adjusted_for_all_columns_and_missing_values_left_out():
    labels = torch.arange(40) % 2
    columns = {f"noise {k}": normal((40,), seed=8, row=torch.arange(1), stream=k)[0] for k in range(3)}
    columns["half"] = torch.where(torch.arange(40) < 20, labels.float(), torch.nan)
    found = associations(labels, columns)
    assert found[0].name == "half"
    assert found[0].n == 20
    assert found[0].p_holm == pytest.approx(4 * found[0].p_value)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"maps": torch.zeros(20, 2, 8, 8)}, "maps: expected"),
        ({"maps": torch.full((20, 1, 8, 8), torch.nan)}, "maps: expected finite"),
        ({"neighbours": 0}, "neighbours"),
        ({"neighbours": 20}, "more than 20"),
    ],
)
def test_bad_maps_are_named(bad, named):
    with pytest.raises(InputError, match=named):
        clusters._check(**({"maps": noise(20, (8, 8)), "neighbours": 3, "most": 3, "side": 8} | bad))


@pytest.mark.parametrize("metadata", [{}, {"a": torch.full((6,), torch.nan)}], ids=["no column", "no value"])
def test_bad_metadata_is_named(metadata):
    with pytest.raises(InputError, match="metadata"):
        associations(torch.arange(6) % 2, metadata)


@pytest.mark.parametrize("codes", [[0.0, 1.0, 2.0], [10.0, 20.0, 30.0]])
def test_codes_go_with_clusters_whose_mean_code_is_the_same(codes):
    labels = (torch.arange(60) % 2).long()
    outer = torch.tensor([codes[0], codes[2]])[torch.arange(60) // 2 % 2]
    (found,) = associations(labels, {"site": torch.where(labels == 1, codes[1], outer)}, permutations=199)
    assert found.measure == "mutual information"
    assert found.value == pytest.approx(1)
    assert found.p_value < 0.01
