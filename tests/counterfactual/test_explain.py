"""Counterfactuals where the truth is known: two Gaussian classes whose means differ in the middle of the image."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cfx.core.cohort import Part
from cfx.core.denoiser import Denoiser
from cfx.core.errors import InputError
from cfx.core.schedule import Schedule
from cfx.counterfactual import Minimal, explain, typical_margins
from cfx.counterfactual.explain import explain_batches, in_turn
from cfx.counterfactual.guidance import Guided
from cfx.counterfactual.method import Meter, Problem
from cfx.counterfactual.result import Counterfactuals
from cfx.counterfactual.shrink import paste
from cfx.models import build
from cfx.models.goal import Goal
from cfx.models.judge import Judge
from tests.counterfactual.toys import (
    BlowsUp,
    Bounded,
    ClassGaussian,
    Cliff,
    Counted,
    CountedClassifier,
    Fragile,
    Linear,
    Quadratic,
    assert_same,
    class_means,
    cohort,
    draw,
    explain_toys,
    tensors,
)

HERE = Path(__file__).parent
SPACES = [(8, 8), (8, 8, 8)]
PLENTY = Minimal(trials=14)


def assert_lawful(result):
    """What holds for every result, failures included."""
    outside = ~result.edited.expand_as(result.x)
    assert torch.equal(result.x_cf[outside], result.x[outside])
    assert torch.equal(result.edited, (result.x_cf != result.x).any(1, keepdim=True))
    assert torch.isfinite(result.x_cf).all()
    assert result.x_cf.abs().max() <= 1 + 1e-5
    done = torch.tensor([v in ("flipped", "already", "unstable") for v in result.verdicts])
    assert torch.equal(done, result.margin_after >= result.margin - 1e-5)
    still = torch.tensor([v in ("already", "refused") for v in result.verdicts])
    assert torch.equal(result.x_cf[still], result.x[still])
    assert (result.strength[still] == 0).all()


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("classifier", ["linear", "quadratic"])
def test_every_image_flips_along_the_true_difference(space, conditional, classifier):
    means = class_means(space)
    judge = Linear(space) if classifier == "linear" else Quadratic(means)
    toys = cohort(means, 12)
    result = explain(toys, judge, ClassGaussian(means, conditional), reference=cohort(means, 60, seed=1))
    assert_lawful(result)
    assert set(result.verdicts) == {"flipped"}
    assert result.flipped.all()
    assert torch.equal(result.target, 1 - toys.y)
    assert torch.equal(result.x, toys.x)
    true = (means[result.target] - means[toys.y]).flatten(1)
    assert torch.cosine_similarity((result.x_cf - result.x).flatten(1), true).min() > 0.8
    assert 0.02 < result.edited.double().mean() < 0.6
    torch.testing.assert_close(result.probs_after, Judge(judge).probabilities(result.x_cf))
    torch.testing.assert_close(result.probs_before, Judge(judge).probabilities(result.x))


@pytest.mark.parametrize("conditional", [True, False])
def test_the_boundary_takes_less_than_the_typical_depth(conditional):
    means = class_means((8, 8))
    three = cohort(means, 12), Linear((8, 8)), ClassGaussian(means, conditional)
    shallow, deep = (explain(*three, depth=depth, method=PLENTY) for depth in ("boundary", "typical"))
    for result in (shallow, deep):
        assert_lawful(result)
        assert result.validity == 1
    small, large = ((r.x_cf - r.x).abs().flatten(1).mean(1) for r in (shallow, deep))
    assert (small < large).all()
    assert (shallow.margin > 0).all()
    assert (shallow.margin < 0.01).all()
    torch.testing.assert_close(deep.margin.sigmoid(), torch.full((12,), 0.95), atol=1e-4, rtol=0)


def test_the_typical_margin_is_that_of_the_reference():
    means = class_means((8, 8))
    reference = cohort(means, 41, seed=3)
    result = explain(cohort(means, 4), Linear((8, 8)), ClassGaussian(means), reference=reference)
    assert torch.equal(result.margin, typical_margins(Linear((8, 8)), reference)[result.target])


def explained(classifier, *, means=None, y=(0, 0, 0), target=1, seed=0, conditional=True, **more):
    means = class_means((8, 8)) if means is None else means
    x = draw(means, torch.tensor(y), seed)
    return explain(x, classifier, ClassGaussian(means, conditional), target, **more)


def test_an_image_of_the_target_class_is_returned():
    result = explained(Linear((8, 8)), y=(1, 0, 1), depth="boundary")
    assert_lawful(result)
    assert result.verdicts[0] == result.verdicts[2] == "already"
    assert result.verdicts[1] != "already"
    assert result.nfe_unet_forward.tolist()[::2] == [0, 0]


def test_a_margin_out_of_reach_is_a_row_with_the_closest_attempt():
    result = explained(Bounded((8, 8)))
    assert_lawful(result)
    assert set(result.verdicts) == {"budget"}
    before = result.probs_before.log().diff(dim=1)[:, 0]
    assert (result.margin_after > before + 1).all()
    assert (result.strength > 0).all()
    assert result.flipped.all()  # the class changed, only not as surely as asked
    assert result.validity == 0


def test_a_decision_that_a_little_noise_undoes_is_unstable():
    result = explained(Fragile((8, 8)), conditional=False, depth="boundary", method=PLENTY)
    assert_lawful(result)
    assert set(result.verdicts) == {"unstable"}
    assert result.flipped.all()


def test_logits_that_break_on_edited_images_refuse_only_their_rows():
    means = class_means((8, 8))
    x = draw(means, torch.zeros(8, dtype=torch.long))
    result = explain(x, BlowsUp((8, 8)), ClassGaussian(means), 1)
    assert_lawful(result)
    breaks = x[:, 0, 0, 0] > 0
    assert 0 < breaks.sum() < 8
    assert result.verdicts == tuple("refused" if b else "flipped" for b in breaks)
    rows = (~breaks).nonzero().flatten()
    alone = explain(x[rows], BlowsUp((8, 8)), ClassGaussian(means), 1, row=rows)
    torch.testing.assert_close(result.x_cf[rows], alone.x_cf, atol=1e-5, rtol=0)


def test_a_gradient_that_is_not_finite_is_refused_not_ignored():
    result = explained(Cliff((8, 8)))
    assert_lawful(result)
    assert set(result.verdicts) == {"refused"}


def test_the_final_image_has_the_last_word():
    """A classifier that also looks at how many images it is given is not believed during the search."""

    class Sociable(Linear):
        def forward(self, x):
            return super().forward(x) - 3 * (len(x) == 3)

    result = explained(Sociable((8, 8)), y=(0, 0, 1), depth="boundary")
    assert_lawful(result)
    assert result.verdicts == ("budget", "budget", "already")
    assert (result.margin_after[:2] < 0).all()


def test_an_image_that_leans_to_the_target_can_still_become_typical():
    means = class_means((8, 8))
    x = means.mean(0) + 0.15 * (means[1:] - means[:1])
    result = explain(x, Linear((8, 8)), ClassGaussian(means), 1)
    assert result.probs_before[0, 1] > 0.7
    assert result.verdicts == ("flipped",)


@pytest.mark.parametrize("conditional", [True, False])
def test_evaluations_are_counted_row_by_row(conditional):
    means = class_means((8, 8))
    toys, target = cohort(means, 9), torch.arange(9) // 3 % 2
    generator, classifier = Counted(ClassGaussian(means, conditional)), CountedClassifier(Linear((8, 8)))
    oracle = CountedClassifier(Linear((8, 8)))
    together = explain(toys, classifier, generator, target, batch_size=4, oracle=oracle)
    assert {"already", "flipped"} <= set(together.verdicts)
    # the first four images at four noise levels say whether it knows them
    assert generator.rows == together.nfe_unet_forward.sum() + 4 * 4
    # two answers to one image check the classifier, and two beside fewer others
    assert classifier.rows == together.nfe_classifier.sum() + 2 + 2
    assert classifier.gradients == together.nfe_classifier_backward.sum() + 1  # one of them its gradient
    assert (oracle.rows, oracle.gradients) == (18 + 4 + 2 + 1, 0)  # and one to see how many classes it has
    for i in range(9):
        generator.rows = classifier.rows = classifier.gradients = 0
        explain(toys.x[i : i + 1], classifier, generator, target[i : i + 1], row=torch.tensor([i]))
        assert generator.rows == together.nfe_unet_forward[i] + 4
        assert classifier.rows == together.nfe_classifier[i] + 2 + 1
        assert classifier.gradients == together.nfe_classifier_backward[i] + 1
    assert (together.nfe_unet_backward == 0).all()


def test_rows_do_not_depend_on_batch_size_or_order():
    whole = explain_toys(48, batch_size=48)
    assert {"already", "flipped"} <= set(whole.verdicts)
    assert_same(tensors(explain_toys(48, batch_size=1)), tensors(whole))
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    means = class_means((8, 8))
    oracle, target = Linear((8, 8)), torch.arange(48) // 3 % 2
    shuffled = explain(
        cohort(means, 48)[order], Quadratic(means), ClassGaussian(means), target[order],
        oracle=oracle, seed=9, row=order, batch_size=7,
    )  # fmt: skip
    assert_same(tensors(shuffled[order.argsort()]), tensors(whole))


def test_the_seed_decides():
    means = class_means((8, 8))
    first, again, other = (
        explain(cohort(means, 4), Quadratic(means), ClassGaussian(means), seed=seed) for seed in (3, 3, 4)
    )
    assert_same(tensors(first), tensors(again), tolerance=0)
    assert ((first.x_cf - other.x_cf).flatten(1).abs().amax(1) > 1e-5).all()
    assert (first.seed, other.seed) == (3, 4)


def test_two_processes_return_all_rows_as_one_does(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(HERE.parent.parent), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = [*launcher, str(HERE / "runner.py"), str(tmp_path), "1", "13"]  # with one row, one process has none
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    for n in (1, 13):
        alone = tensors(explain_toys(n))
        for rank in (0, 1):
            assert_same(load_file(tmp_path / f"{n}-{rank}.safetensors"), alone)


def test_batches_are_handed_over_as_they_are_done():
    means = class_means((8, 8))
    networks = Quadratic(means), ClassGaussian(means)
    parts = explain_batches(cohort(means, 7), *networks, batches=in_turn(7, 3))
    result = explain(cohort(means, 7), *networks, batch_size=3)
    seen = [next(parts)]
    assert_same(tensors(seen[0]), tensors(result[:3]), tolerance=0)
    seen += parts
    assert [len(part) for part in seen] == [3, 3, 1]
    assert_same(tensors(Counterfactuals.cat(seen)), tensors(result), tolerance=0)


def test_nothing_is_read_but_what_a_batch_needs():
    means = class_means((8, 8))
    read = []

    class Watched(Part):
        def __getitem__(self, rows):
            read.append(torch.as_tensor(rows).tolist())
            return super().__getitem__(rows)

    source = Watched(cohort(means, 9), torch.arange(9))
    whole = explain(cohort(means, 9), Quadratic(means), ClassGaussian(means), batch_size=3)
    parts = explain_batches(source, Quadratic(means), ClassGaussian(means), batches=[range(3, 6), [8]])
    assert read == [[0]]
    assert_same(tensors(Counterfactuals.cat(list(parts))), tensors(whole[[3, 4, 5, 8]]))
    assert read == [[0], [3, 4, 5], [8]]


def test_networks_are_as_they_were_between_batches():
    means = class_means((8, 8))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1)).train()
    for _ in explain_batches(cohort(means, 4), net, ClassGaussian(means), batches=in_turn(4, 2)):
        assert net.training
        assert net[1].weight.requires_grad


def test_the_oracle_only_judges():
    result = explain_toys(6)
    oracle = Judge(Linear((8, 8)))
    torch.testing.assert_close(result.oracle_probs_before, oracle.probabilities(result.x))
    torch.testing.assert_close(result.oracle_probs_after, oracle.probabilities(result.x_cf))
    assert explained(Linear((8, 8))).oracle_probs_after is None


def test_a_classifier_in_training_is_used_at_rest_and_left_as_it_was():
    net = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Flatten(), torch.nn.Linear(64, 1))
    net[2].weight.data = 8 * Linear((8, 8)).weight.flatten()[None]
    net.train()
    first, second = (explained(net, conditional=False) for _ in range(2))
    assert_same(tensors(first), tensors(second), tolerance=0)
    assert net.training
    assert net[0].training
    assert net[2].weight.requires_grad
    assert net[2].weight.grad is None


@pytest.mark.parametrize("conditional", [True, False])
def test_three_classes_reach_the_targets_of_their_rows(conditional):
    means = class_means((12, 12), 3)
    toys = cohort(means, 9)
    target = (toys.y + 1 + torch.arange(9) // 3 % 2) % 3
    classifier = Quadratic(means)
    result = explain(toys, classifier, ClassGaussian(means, conditional), target, reference=cohort(means, 90, seed=4))
    assert_lawful(result)
    assert torch.equal(result.target, target)
    assert torch.equal(result.probs_before.argmax(1), toys.y)
    assert torch.equal(result.probs_after.argmax(1), target)
    assert set(result.verdicts) <= {"flipped", "unstable"}
    aim = (means[target] - means[toys.y]).flatten(1)
    assert torch.cosine_similarity((result.x_cf - result.x).flatten(1), aim).min() > 0.5


def test_without_a_target_the_second_most_probable_class_is_it():
    means = class_means((12, 12), 3)
    result = explain(cohort(means, 6), Quadratic(means), ClassGaussian(means), depth="boundary")
    assert torch.equal(result.target, result.probs_before.argsort(1)[:, 1])
    assert result.flipped.all()


def test_a_generator_of_other_classes_serves_without_labels():
    """Three classes in the generator, two in the classifier: labels would mean different things."""
    means = class_means((8, 8), 3)[[0, 2]]
    generator = Counted(ClassGaussian(torch.cat([means, means.mean(0)[None]])))
    result = explain(cohort(means, 4), Quadratic(means), generator)
    assert generator.rows == result.nfe_unet_forward.sum() + 4 * 4  # and four images at four noise levels
    assert result.flipped.all()


def volumes(conditional, side=32):
    """A tiny real 3D generator and classifier; convolutions that start at zero are drawn anew."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        classes = 2 if conditional else None
        network = build(
            "patch-unet", spatial_dims=3, in_channels=1, channels=[8, 8], attention=[False, False], features=4,
            classes=classes,
        )  # fmt: skip
        for module in network.modules():
            if isinstance(module, torch.nn.Conv3d) and not module.weight.any():
                module.reset_parameters()
        classifier = build("cnn", spatial_dims=3, in_channels=1, out_channels=1, channels=[4, 8])
        x = torch.rand(2, 1, side, side, side) * 1.8 - 0.9
    schedule = Schedule.from_diffusers({"prediction_type": "v_prediction", "timestep_spacing": "trailing"})
    return x, classifier, Denoiser(network, schedule, classes=classes, shape=(1, side, side, side))


@pytest.mark.parametrize(("conditional", "side"), [(True, 32), (False, 32), (True, 48)])
def test_volumes_through_real_networks(conditional, side):
    x, classifier, generator = volumes(conditional, side)
    result = explain(x, classifier, generator, method=Minimal(steps=3, trials=2), part="attempt")
    assert_lawful(result)
    assert result.edited.flatten(1).any(1).all()
    margin = Judge(classifier).margin(result.x_cf, result.target)
    torch.testing.assert_close(result.margin_after, margin.detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [32, 48])
def test_volumes_come_back_from_the_null_edit(side):
    x, classifier, generator = volumes(True, side)
    x, rows = x[:1], torch.arange(1)
    method, original, zero = Minimal(steps=3), x, torch.zeros(1)
    for _ in range(10):
        problem = Problem(
            x=x, source=rows, target=1 - rows, goal=Goal(zero), before=zero, row=rows, seed=0, judge=Judge(classifier),
            generator=generator, meter=Meter(1), labelled=True,
        )  # fmt: skip
        edited = Guided.of(method, problem).edit(rows, zero)
        assert torch.equal(paste(x, edited, method.threshold), x)
        x = edited
        assert (x - original).abs().max() <= 1e-5


def test_real_networks_give_the_same_rows_in_any_batch():
    x, classifier, generator = volumes(True)
    runs = [explain(x, classifier, generator, method=Minimal(steps=2, trials=2), batch_size=n) for n in (1, 2)]
    assert_same(tensors(runs[0]), tensors(runs[1]))


@pytest.mark.parametrize("method", ["minimal", "morph", "gradient-attack"])
def test_forbidden_voxels_stay_bit_for_bit(method):
    means = class_means((8, 8))
    data = cohort(means, 4)
    edit, keep = torch.zeros(4, 1, 8, 8, dtype=torch.bool), torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    edit[..., 1:6], keep[..., 3, :] = True, True
    run = (data, Linear((8, 8)), ClassGaussian(means), 1 - data.y)
    result = explain(*run, depth="boundary", edit=edit, keep=keep, method=method)
    assert result.validity == 1.0
    assert torch.equal(result.x_cf[~(edit & ~keep)], result.x[~(edit & ~keep)])
    assert (result.x_cf != result.x).flatten(1).any(1).all()


def test_masks_of_another_kind_are_refused():
    means = class_means((8, 8))
    data = cohort(means, 4)
    with pytest.raises(InputError, match=r"keep: expected a boolean mask \(4, 1, 8, 8\), got .* \(4, 1, 6, 6\)"):
        explain(data, Linear((8, 8)), ClassGaussian(means), keep=torch.zeros(4, 1, 6, 6, dtype=torch.bool))
