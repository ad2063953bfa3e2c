"""The shipped checkpoints do what the README says, on subjects nobody trained on."""

from dataclasses import fields
from pathlib import Path
from typing import Literal

import pytest
import torch

from cfx.commands.bench.planted import figures, planted_cohort
from cfx.core.abduction import abduct, mean_of, replay
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.scores import auroc
from cfx.counterfactual import Minimal, explain
from cfx.counterfactual.metrics import evaluate
from cfx.counterfactual.result import Counterfactuals
from cfx.data import BrainConfig, load_cohort
from cfx.data.ladder import RUNGS
from cfx.models import load
from cfx.ood import Fitted, fit
from cfx.segmentation import sample_masks
from cfx.segmentation.metrics import evaluate as compare
from tests.training.toys import balls

NAMES = ("brain64-classifier", "brain64-relu-classifier", "brain64-diffusion", "brain64-oracle", "brain64-vae")


@pytest.fixture(scope="module")
def models(root: Path) -> dict[str, torch.nn.Module]:
    return {name: load(root / "checkpoints" / name) for name in NAMES}


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return load_cohort(BrainConfig(n=12, seed=9))


@pytest.fixture(scope="module")
def reference() -> Cohort:
    return load_cohort(BrainConfig(n=128, seed=1, start=100000))


@pytest.fixture(scope="module")
def result(models: dict[str, torch.nn.Module], cohort: Cohort, reference: Cohort) -> Counterfactuals:
    return explain(
        cohort.x, models["brain64-classifier"], models["brain64-diffusion"],
        reference=reference, oracle=models["brain64-oracle"], batch_size=12,
    )  # fmt: skip


@pytest.fixture(scope="module")
def gate(root: Path, reference: Cohort) -> Fitted:
    return fit(reference, generator=load(root / "checkpoints/brain64-ood-diffusion"))


@pytest.mark.parametrize("name", ["brain64-classifier", "brain64-relu-classifier", "brain64-oracle"])
def test_classifiers_know_unseen_subjects(models: dict[str, torch.nn.Module], name: str) -> None:
    unseen = load_cohort(BrainConfig(n=300, seed=11))
    with torch.no_grad():
        right = models[name](unseen.x).argmax(1) == unseen.y
    assert right.double().mean() >= 0.97


def test_the_plain_classifier_is_of_relu_and_batch_normalisation(models: dict[str, torch.nn.Module]) -> None:
    network = models["brain64-relu-classifier"]
    assert sum(isinstance(m, torch.nn.ReLU) for m in network.modules()) == 7
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules()) == 7
    assert not any(isinstance(m, torch.nn.GroupNorm | torch.nn.SiLU) for m in network.modules())


@pytest.mark.parametrize("name", ["tag", "implant", "ruler", "upside-down", "slice-above"])
def test_to_the_generator_of_clean_slices_they_are_out_of_distribution(gate: Fitted, name: str) -> None:
    base = BrainConfig(n=12, seed=9)
    usual, found = (gate.score(cohort).score for cohort in (load_cohort(base), RUNGS[name].make(base)))
    assert float(auroc(torch.cat([usual, found]), torch.arange(24) >= 12)) > 0.9


def test_the_autoencoder_reconstructs(models: dict[str, torch.nn.Module], cohort: Cohort) -> None:
    with torch.no_grad():
        again, *_ = models["brain64-vae"](cohort.x)
    spread = (cohort.x - cohort.x.mean(0)).square().mean().sqrt()
    assert (again - cohort.x).square().mean().sqrt() < 0.35 * spread


def test_counterfactuals_flip_and_the_oracle_agrees(result: Counterfactuals, cohort: Cohort) -> None:
    found = evaluate(result, cohort)
    assert found["validity"] >= 0.9
    assert found["oracle_validity"] >= 0.75  # twelve rows; the demo measures 48
    assert found["nfe_unet_forward"] <= 60
    assert found["nfe_unet_forward_max"] <= 130
    assert found["nfe_unet_backward"] == 0
    assert found["error_to_truth_ratio"] < 0.75  # the bench measures 256
    assert found["localisation_auprc"] > 0.6
    assert (result.consent > 0.9).all()  # the classifier looks at the disease, and says so


def test_outside_the_mask_nothing_changes(result: Counterfactuals) -> None:
    outside = ~result.edited.expand_as(result.x)
    assert outside.any()
    assert torch.equal(result.x_cf[outside], result.x[outside])


def test_a_null_edit_repeated_ten_times_returns_the_image(models: dict[str, torch.nn.Module], cohort: Cohort) -> None:
    generator, x = models["brain64-diffusion"], cohort.x[:4]
    label, row, again = cohort.y[:4], torch.arange(4), x
    with torch.no_grad():
        for _ in range(10):
            maps = abduct(generator, again, Minimal().times(generator), seed=0, row=row, label=label)
            again = replay(maps, mean_of(generator, label))
            assert (again - x).abs().max() <= 1e-5


def test_one_row_at_a_time_gives_the_same(
    models: dict[str, torch.nn.Module], cohort: Cohort, reference: Cohort, result: Counterfactuals
) -> None:
    alone = explain(
        cohort.x[:3], models["brain64-classifier"], models["brain64-diffusion"],
        reference=reference, oracle=models["brain64-oracle"], batch_size=1,
    )  # fmt: skip
    for f in fields(Counterfactuals):
        a, b = getattr(alone, f.name), getattr(result[:3], f.name)
        if isinstance(a, torch.Tensor) and f.name not in ("edited", "seconds"):
            assert torch.allclose(a.double(), b.double(), atol=1e-5, equal_nan=True), f.name


def test_the_least_change_is_found_at_the_cost_promised_and_certified(
    models: dict[str, torch.nn.Module], cohort: Cohort
) -> None:
    found = explain(cohort[:8], models["brain64-classifier"], models["brain64-diffusion"], depth="boundary")
    assert found.validity == 1.0
    assert found.certified.all()
    assert found.nfe_unet_forward.double().mean() <= 60
    assert int(found.nfe_unet_backward.sum()) == 0


@pytest.mark.parametrize("kind", ["tag", "implant", "scanner", "shape"])
def test_the_edit_shows_what_the_classifier_looks_at(
    root: Path, models: dict[str, torch.nn.Module], kind: Literal["tag", "implant", "scanner", "shape"]
) -> None:
    """The generator's classes are the disease; these classifiers look at something else, and the edit follows them."""
    classifier = load(root / f"checkpoints/brain64-{kind}-classifier")
    images, disease = planted_cohort(kind, 8, 9)
    result = explain(
        images, classifier, models["brain64-diffusion"], 1 - images.y,
        reference=planted_cohort(kind, 64, 10)[0], batch_size=8,
    )  # fmt: skip
    found = figures(result, images, disease)
    assert found["consent"] < 0.2
    assert found["faithful"] >= 0.875
    assert found["stable"] >= 0.875
    if kind in ("tag", "implant"):
        assert found["revealed"] >= 0.875


def test_outlines_are_drawn_as_readers_would(root: Path) -> None:
    """Of lung lesions of patients that the network has not seen."""
    network = load(root / "checkpoints/lidc64-energy")
    try:
        cohort = load_cohort({"kind": "lidc", "split": "test", "slices": "largest"})[:64]
    except InputError as error:
        pytest.skip(str(error))
    found = sample_masks(cohort, network, 16)
    assert cohort.readings is not None
    scores = compare(found.masks != 0, cohort.readings)
    assert float(scores.ged_debiased.mean()) < 0.12
    assert float(scores.diversity.mean()) > 0.7 * float(scores.reader_diversity.mean())


def test_a_clear_nodule_is_outlined_and_empty_lung_is_not(root: Path) -> None:
    """In the middle of dark noise, at the scale of a pixel a mm."""
    network = load(root / "checkpoints/lidc64-energy")
    noise = 0.05 * torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    there = balls(torch.tensor([6.0, -1.0]), (64, 64))
    found = sample_masks((noise - 0.79 + 1.25 * there).clamp(-1, 1), network, 32)
    area = found.masks.flatten(2).sum(2).double()
    assert 60 < float(area[0].median()) < 200  # a disc of 113 pixels
    assert float((area[1] == 0).double().mean()) > 0.5
