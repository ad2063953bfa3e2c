"""Every case is made, small and in both dimensions, and what it can read is what moves it."""

import pytest
import torch

from cfx.commands.bench.cases import FAMILIES, artefacts, cases, untrained
from cfx.commands.bench.known import margin
from cfx.commands.bench.stock import part_changed
from cfx.core.errors import InputError
from cfx.models import build
from tests.commands.bench.test_stock import stock


def a_network(dims=2):
    torch.manual_seed(0)
    return build("cnn", spatial_dims=dims, in_channels=1, out_channels=2, channels=[4, 4]).eval()


def some_stock(folder, dims=2, **more):
    return stock(folder, grid={"size": 32, "dims": dims}, trained={"a": a_network(dims), "b": a_network(dims)}, **more)


def slope(network, x):
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(margin(network, x).sum(), x)[0]


@pytest.mark.parametrize("dims", [2, 3])
def test_what_exact_cases_can_read_is_all_that_has_a_gradient(tmp_path, dims):
    found = list(cases(some_stock(tmp_path, dims), ("pixel", "patch", "ventricles")))
    assert [c.name for c in found] == ["pixel-0", "pixel-1", "patch-0", "patch-1", "ventricles"]
    for case in found:
        x = case.images.x
        g = slope(case.networks[0], x)
        assert g[~case.truth].abs().max() == 0
        assert (g[case.truth] != 0).any()
        changed = torch.where(case.truth, x, -x)
        torch.testing.assert_close(case.networks[0](changed), case.networks[0](x))


def test_dark_middle_is_moved_by_the_ventricles_and_not_by_lesions(tmp_path):
    some = some_stock(tmp_path, n=48, reference=48)
    (case,) = cases(some, ("ventricles",))
    v, s = (part_changed(some.brains("asked"), part) for part in ("ventricles", "lesions"))
    m = [margin(case.networks[0], x) for x in (case.images.x, v, s)]
    assert float((m[2] - m[0]).abs().mean()) < 0.1 * float((m[1] - m[0]).abs().mean())


def test_trained_cases_say_where_their_factor_changes_anything(tmp_path):
    names = ("ventricles-network", "lesions-network", "tag-q9", "artefacts", "memorised", "random-labels")
    found = {c.name: c for c in cases(some_stock(tmp_path, steps=1), names)}
    assert set(found) == {
        "ventricles-network", "lesions-network", "tag-q9", "artefact-block", "artefact-stripes", "artefact-checkers",
        "memorised", "random-labels",
    }  # fmt: skip
    for name in ("artefact-block", "artefact-stripes"):
        case = found[name]
        assert torch.equal(case.images.x_true != case.images.x, case.truth)
        assert torch.equal(case.disease[case.truth], case.images.x[case.truth])
        assert case.images.y.unique().tolist() == [0, 1]
    tag = found["tag-q9"]
    assert tag.truth[:, :, :4, :4].any()
    assert float((tag.images.y == tag.images.covariates["planted_tag"].long()).float().mean()) > 0.5
    assert torch.equal(tag.towards, 1 - tag.images.y)


def test_a_known_sum_is_asked_about_the_tag_and_compared_with_the_disease(tmp_path):
    some = some_stock(tmp_path, n=24)
    with pytest.raises(InputError, match="classifier of the tag"):
        next(cases(some, ("tag-sum",)))
    (case,) = cases(some_stock(tmp_path, n=24, tag=a_network()), ("tag-sum",))
    assert torch.equal(case.images.y, case.images.covariates["planted_tag"].long())
    assert torch.equal(case.towards, 1 - some.asked.y)  # the disease is another class
    corner = case.images.x[:, :, :4, :4]
    torch.testing.assert_close(case.disease[:, :, :4, :4], corner)
    assert (case.images.x_true[:, :, :4, :4] != corner).flatten(1).any(1).all()


def test_untrained_networks_differ_by_their_seed_and_leave_the_random_state_alone(tmp_path):
    some = some_stock(tmp_path)
    state = torch.random.get_rng_state()
    for family in FAMILIES:
        a, again, b = (margin(untrained(some, family, k), some.labelled.x).detach() for k in (0, 0, 1))
        assert torch.equal(a, again)
        assert not torch.allclose(a, b)
        assert float(a.median()) == pytest.approx(0, abs=1e-3)
    assert torch.equal(torch.random.get_rng_state(), state)
    found = list(cases(some, ("untrained",)))
    assert [c.name for c in found] == [f"untrained-{family}" for family in FAMILIES]
    assert {(len(c.networks), len(c.images), len(c.lesion)) for c in found} == {(2, 3, 3)}


def test_trained_networks_are_taken_as_they_are_and_exchanged(tmp_path):
    some = some_stock(tmp_path)
    a, b, turned = cases(some, ("trained", "exchanged"))
    assert [c.name for c in (a, b, turned)] == ["trained-a", "trained-b", "exchanged"]
    torch.testing.assert_close(margin(turned.networks[0], some.asked.x), -margin(a.networks[0], some.asked.x))


@pytest.mark.parametrize("space", [(64, 64), (32, 32, 32)])
def test_artefacts_lie_in_one_corner_and_differ(space):
    found = artefacts(space)
    assert list(found) == ["block", "stripes", "checkers"]
    where = [pattern != 0 for pattern in found.values()]
    assert torch.equal(where[0], where[1])
    assert torch.equal(where[0], where[2])
    assert 0 < int(where[0].sum()) <= (0.2 * space[0] + 1) ** len(space)
    signs = [pattern[where[0]].sign() for pattern in found.values()]
    assert signs[0].unique().tolist() == [1]
    assert all(sorted(s.unique().tolist()) == [-1, 1] for s in signs[1:])
    assert not torch.equal(signs[1], signs[2])
