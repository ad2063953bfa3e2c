"""The laws that tie methods together, completeness and verdicts, costs, and clear refusals that leave no trace."""

import copy
import warnings

import pytest
import torch
from torch import nn

import cfx
from cfx.attribution import ATTRIBUTIONS, Completeness, attribute, build_attribution
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.random import normal
from tests.attribution.networks import Hidden, Linear, Rectified, images, weighted

ADDITIVE = ("input-x-gradient", "integrated-gradients", "deeplift")
MAPS = tuple(name for name in ATTRIBUTIONS if name != "difference")
QUICK = {"integrated-gradients": {"steps": 4, "most": 0}, "smoothgrad": {"copies": 2}}


@pytest.mark.parametrize("space", [(8, 8), (4, 4, 4)])
@pytest.mark.parametrize("method", ADDITIVE)
def test_of_a_linear_model_all_agree_with_its_weights_times_the_change(method, space):
    f, x, b = Linear(space), images(3, space), images(3, space, seed=5)
    found = attribute(f, x, [0, 1, 2], method=method, baseline=b)
    torch.testing.assert_close(found.map, f.w.detach() * (x - b), rtol=1e-4, atol=1e-5)
    assert found.verdicts == ("complete",) * 3
    torch.testing.assert_close(found.map.flatten(1).sum(1), found.value - found.value_baseline, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["epsilon-lrp", "fullgrad"])
def test_of_a_linear_model_the_bias_is_accounted_for(method):
    f, x = Linear(), images(2)
    found = attribute(f, x, 2, method=method)
    spread = 0 if method == "epsilon-lrp" else 2 / 64
    torch.testing.assert_close(found.map, f.w[2].detach() * x + spread, rtol=1e-4, atol=1e-5)
    assert found.bias.tolist() == pytest.approx([2.0 if method == "epsilon-lrp" else 0.0] * 2, abs=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_without_biases_four_methods_are_one(dims):
    f, x = weighted(Rectified(dims=dims, bias=False)), images(2, (6,) * dims)
    one = attribute(f, x, 1, method="input-x-gradient")
    assert float(one.map.abs().max()) > 1e-3
    for method in ("integrated-gradients", "deeplift", "epsilon-lrp"):
        found = attribute(f, x, 1, method=method)
        torch.testing.assert_close(found.map, one.map, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(found.map.flatten(1).sum(1), found.value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["deeplift", "epsilon-lrp", "fullgrad"])
def test_what_a_map_promises_it_keeps(method):
    f, x = weighted(Rectified("inplace", 3, norm=True)), images(2, (6, 6, 6))
    found = attribute(f, x, 1, method=method)
    assert found.verdicts == ("complete", "complete")
    assert float(found.completeness_error.max()) <= 1e-4


@pytest.mark.parametrize("method", ["deeplift", "epsilon-lrp"])
def test_normalisation_by_an_image_has_no_rule_and_a_hidden_activation_is_incomplete(method):
    x = images(2)
    norm = weighted(nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)))
    found = attribute(norm, x, 1, method=method)
    assert found.verdicts == ("undefined", "undefined")
    assert set(found.remark) == {"no rule for group_norm"}
    assert attribute(weighted(Hidden()), x, 1, method=method).verdicts == ("incomplete", "incomplete")
    assert attribute(weighted(Hidden()), x, 1).verdicts == ("complete", "complete")  # integrated gradients need no rule


def test_guided_backprop_of_a_script_or_a_hidden_activation_is_refused():
    f = weighted(Rectified())
    x = images(2)
    assert attribute(f, x, 1, method="guided-backprop").verdicts == ("undefined", "undefined")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.trace(f, x, check_trace=False)
    for hidden in (script, weighted(Hidden())):
        found = attribute(hidden, x, 1, method="guided-backprop")
        assert found.verdicts == ("refused", "refused")
        assert "hides its nonlinearity" in found.remark[0]
        assert float(found.map.abs().max()) == 0


def test_a_gradient_that_is_not_that_of_the_output_is_incomplete():
    class Straight(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx, g):
            return g

    f = Linear()
    found = attribute(
        lambda x: Straight.apply(f(x)), images(2), [0, 1], method=build_attribution("integrated-gradients", most=0)
    )
    assert "incomplete" in found.verdicts


@pytest.mark.parametrize("method", MAPS)
def test_a_map_depends_on_its_image_alone_and_what_it_cost_is_counted(method):
    f, x, asked = weighted(Rectified(norm=True)), images(5), []
    f.register_forward_hook(lambda _, given, __: asked.append(len(given[0])))
    made = build_attribution(method, **QUICK.get(method, {}))
    whole = attribute(f, x, [0, 1, 2, 1, 0], method=made)
    spent = int(whole.nfe_classifier.sum())
    assert 0 < spent <= sum(asked) <= spent + 5 + 3 * 5  # what checks the classifier belongs to no row
    one = attribute(f, x[3:4], 1, method=made, row=[3], batch_size=2)
    torch.testing.assert_close(one.map[0], whole.map[3], rtol=1e-3, atol=1e-5)
    again = attribute(f, x, [0, 1, 2, 1, 0], method=made, batch_size=2)
    torch.testing.assert_close(again.map, whole.map, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", MAPS)
def test_the_network_is_left_as_it_was_also_after_an_error(method):
    f, x = weighted(Rectified("inplace", norm=True)), images(2)
    f.norm.train()
    before = copy.deepcopy(f.state_dict())
    made = build_attribution(method, **QUICK.get(method, {}))
    attribute(f, x, 1, method=made)

    class Failing(Rectified):
        calls = 0

        def forward(self, x):
            Failing.calls += 1
            if Failing.calls > 3:
                super().forward(x)
                raise RuntimeError("out of patience")
            return super().forward(x)

    broken = weighted(Failing())
    if method in ("integrated-gradients", "grad-cam", "deeplift"):
        with pytest.raises(InputError, match="out of patience"):
            attribute(broken, x, 1, method=made)
    for network in (f, broken):
        assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in network.modules())
        assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert f.norm.training
    assert all(torch.equal(v, before[k]) for k, v in f.state_dict().items())


def test_a_binary_logit_speaks_for_either_class():
    f = lambda x: Linear(k=1)(x)  # noqa: E731
    x = images(2)
    up, down = (attribute(f, x, k).map for k in (1, 0))
    torch.testing.assert_close(up, -down)
    assert float(up.abs().max()) > 0


def test_a_margin_is_the_difference_of_two_logits():
    f, x = Linear(k=2), images(2)
    found = attribute(f, x, 1, output="margin", method="input-x-gradient")
    torch.testing.assert_close(found.map, (f.w[1] - f.w[0]).detach() * x)


def test_targets_are_classes_by_number_by_name_or_the_predicted_one():
    f, x = Linear(), images(3)
    cohort = Cohort(x, classes=["a", "b", "c"])
    assert torch.equal(attribute(f, cohort, "b").map, attribute(f, x, 1).map)
    assert attribute(f, x).target.tolist() == f(x).argmax(1).tolist()


def test_baselines_by_name_and_image():
    f, x = Linear(), images(3)
    w = f.w[1].detach()
    for baseline, b in (("zero", 0.0), ("black", -1.0), (x[0], x[0]), (x[:1], x[0]), (x.flip(0), x.flip(0))):
        torch.testing.assert_close(attribute(f, x, 1, baseline=baseline).map, w * (x - b), rtol=1e-4, atol=1e-5)
    mean = attribute(f, x, 1, baseline="mean", reference=x).map
    torch.testing.assert_close(mean, w * (x - x.mean(0)), rtol=1e-4, atol=1e-5)


def test_rows_that_are_not_finite_are_refused_and_the_others_are_not():
    f = Linear()
    x = images(3)
    x[1, 0, 0, 0] = 0.999
    found = attribute(lambda v: torch.where(v[:, 0, :1, 0] > 0.998, torch.nan, f(v)), x, 1, method="saliency")
    assert found.verdicts == ("undefined", "refused", "undefined")
    assert "not finite" in found.remark[1]
    assert float(found.map[1].abs().max()) == 0


def test_it_is_a_public_name():
    assert cfx.attribute is attribute
    assert cfx.attribution.ATTRIBUTIONS is ATTRIBUTIONS
    assert int(Completeness.COMPLETE) == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda f, x: attribute(f, x, 3), r"target: expected one class in 0 .. 2.*got \[3\]"),
        (lambda f, x: attribute(f, x, [0]), "one for each of 2 images, got 1 of them"),
        (lambda f, x: attribute(f, x, "b"), "target: expected one class"),
        (lambda f, x: attribute(f, x, method="gradcam"), "method: expected one of"),
        (lambda f, x: attribute(f, x, baseline="grey"), "baseline: expected one of"),
        (lambda f, x: attribute(f, x, baseline="mean"), "baseline: expected reference"),
        (lambda f, x: attribute(f, x, baseline=x[:, :, :4]), "baseline: expected floating-point images"),
        (lambda f, x: attribute(f, x, baseline=x * torch.nan), "baseline: expected finite"),
        (lambda f, x: attribute(f, x, method="difference"), "difference: expected counterfactuals as baseline"),
        (lambda f, x: attribute(f, x, output="score"), "output: expected 'logit' or 'margin'"),
        (lambda f, x: attribute(f, x, batch_size=0), "batch_size: expected a whole number from 1"),
        (lambda f, x: attribute(f, x[:0]), "x: expected at least one image"),
        (lambda f, x: attribute(f, 2 * x), r"values in \[-1, 1\]"),
        (lambda f, x: attribute(lambda v: f(v).detach(), x), "f: expected logits with a gradient"),
        (lambda f, x: attribute(lambda v: f(v) + torch.rand(1), x), "expected the same answer"),
        (lambda f, x: attribute(lambda v: f(v) + torch.rand(1), x, method="occlusion"), "expected the same answer"),
        (lambda f, x: attribute(lambda v: f(v), x, method="grad-cam"), "layer: expected a classifier that is a module"),
        (lambda f, x: attribute(f, x, method=build_attribution("grad-cam", layer="no")), "layer: expected one of"),
        (lambda f, x: attribute(f, x, method=build_attribution("occlusion", patch=0)), "patch: expected a whole"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(call, said):
    with pytest.raises(InputError, match=said):
        call(weighted(Rectified()), images(2))


def test_noise_of_a_row_goes_by_its_number():
    assert not torch.equal(*attribute(Linear(), images(1).repeat(2, 1, 1, 1), 1, method="random").map)
    assert normal((1,), seed=0, row=torch.tensor([0]), stream=0).shape == (1, 1)
