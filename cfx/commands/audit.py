"""One audit, whole: a plan written and hashed, then networks, interventions, tests, and a folder with the verdict."""

import json
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import nn

from cfx.atlas import Atlas, write_atlas
from cfx.commands.alike import alike, network_classes
from cfx.commands.networks import DetectorConfig
from cfx.commands.ood import gate_of
from cfx.confounder.audit import Audit, Ready, audit, ready
from cfx.confounder.intervention import Intervention, Scores
from cfx.confounder.plan import Plan
from cfx.confounder.planted import simulated
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.data import BrainConfig, DataConfig, load_cohort, open_cohort
from cfx.models.opening import Network, open_network
from cfx.report.audit.page import audit_page
from cfx.runtime.config import RunConfig
from cfx.runtime.files import digest
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import in_its_folder
from cfx.runtime.processes import make_accelerator
from cfx.runtime.shares import together
from cfx.training.config import TrainConfig
from cfx.training.repeats import train_seeds

_OUTCOMES = ("severity", "severity_true")  # of the simulated disease: what the classes are, not what they should share


class AuditConfig(RunConfig):
    """What to suspect, in which images, of which classifiers."""

    plan: Plan
    """What the verdict depends on."""
    data: DataConfig
    """Labelled test images; never those the classifiers were trained on."""
    donors: DataConfig | None = None
    """Whose shapes are borrowed, for the confounder `shape`; the test images by default."""
    classifiers: tuple[Network, ...] = ()
    """Networks trained alike but for their seed: their paths, or how they want images and answer besides."""
    train: TrainConfig | None = None
    """How to train them, where there are none yet; kept under the run's folder."""
    detector: DetectorConfig | None = None
    """Audit this detector's score in the place of a classifier: does it rely on the confounder? `plan.seeds` is 1."""
    gate: DetectorConfig | None = None
    """A detector that says of every changed image whether it is still in distribution; no verdict depends on it."""
    permutations: int = Field(default=999, ge=99)
    """Permutations of every test that needs them."""
    batch_size: int = Field(default=64, ge=1)
    """Images worked on together."""

    @model_validator(mode="after")
    def _networks(self) -> "AuditConfig":
        given = [bool(self.classifiers), self.train is not None, self.detector is not None]
        if sum(given) != 1:
            raise ValueError(f"classifiers, train, detector: expected one of them, got {sum(given) or 'none'}")
        if self.detector is not None and self.plan.seeds != 1:
            raise ValueError(f"plan.seeds: expected 1, for one detector, got {self.plan.seeds}")
        if self.classifiers and len(self.classifiers) != self.plan.seeds:
            got = f"{len(self.classifiers)} classifiers and seeds={self.plan.seeds}"
            raise ValueError(f"plan.seeds: expected the number of classifiers, got {got}")
        return self


@in_its_folder
def audit_run(config: AuditConfig) -> Audit:
    """Audit classifiers for one confounder and write all of it into the run's folder.

    These are `plan.json` and `config.yaml`, before a network runs; what is known of every image in `atlas.zarr` and
    `sensitivity.zarr` (and `atlas-exact.zarr`); `summary.json` and `report.html`. The processes of a launch share the
    training and the measuring.

    Raises:
        InputError: images without labels or needed masks, or a confounder that cannot be changed in them.
        CheckpointError, CfxError: a classifier cannot be read or trained.
        AtlasError: the scores cannot be written, or something else is in their place.
    """
    accelerator = make_accelerator()
    folder = RunFolder(config.folder)
    if (folder / "atlas.zarr").exists():
        Atlas(folder / "atlas.zarr", Scores)  # an audit replaces an older one, and nothing else
    sha = _written(config, folder)
    cohort, donors, exact = _images(config)
    shape = config.plan.confounder == "shape"
    found = audit(
        _classifiers(config, cohort, accelerator.device),
        cohort,
        config.plan,
        donors=donors,
        intervention=None if shape else exact,
        exact=exact if shape else None,
        leave_out=[name for name in _OUTCOMES if name in cohort.covariates],
        permutations=config.permutations,
        batch_size=config.batch_size,
        gate=None if config.gate is None else gate_of(config.gate, cohort, accelerator.device)[0],
        plan_sha256=sha,
        accelerator=accelerator,
    )
    with together(accelerator):
        if accelerator.is_main_process:
            _keep(found, cohort, folder)
            folder.summary(found.summary())
            folder.page(audit_page(found, config.name))
    return found


def _keep(found: Audit, cohort: Cohort, folder: RunFolder) -> None:
    """What is known of every image, as atlases."""
    how: dict[str, Any] = {"fingerprint": {"plan": found.plan_sha256}, "exists": "overwrite"}
    write_atlas(folder / "atlas.zarr", found.scores, cohort, **how)
    if found.sensitivity is not None:
        write_atlas(folder / "sensitivity.zarr", found.sensitivity, **how)
    if found.exact_scores is not None:
        write_atlas(folder / "atlas-exact.zarr", found.exact_scores, **how)


def _written(config: AuditConfig, folder: RunFolder) -> str:
    """Write the plan, and everything else that the verdict depends on, under its digest; return that."""
    plan = {k: v for k, v in config.model_dump(mode="json").items() if k not in ("out", "batch_size", "gate")}
    if config.detector is None:
        del plan["detector"]
    sha = digest(plan)
    folder.config(config)
    folder.write("plan.json", json.dumps({"sha256": sha, **plan}, indent=2) + "\n")
    return sha


def _classifiers(config: AuditConfig, cohort: Cohort, device: torch.device) -> list[nn.Module]:
    """The networks, read or trained, or the score of the detector, fitted."""
    if config.detector is not None:
        return [gate_of(config.detector, cohort, device)[0].as_classifier()]
    if config.train is None:
        return [open_network(network).to(device) for network in config.classifiers]
    out = config.train.out or str(config.folder / config.train.name)
    networks = train_seeds(config.train.model_copy(update={"out": out}), config.plan.seeds)
    return [network.to(device) for network in networks]


def _classes(config: AuditConfig) -> tuple[str, ...]:
    """Names of the classes of the networks, in label order, as far as they are known."""
    if config.train is None:
        return network_classes({f"classifiers.{k}": path for k, path in enumerate(config.classifiers)})
    return () if config.train.data is None else tuple(open_cohort(config.train.data).classes)


def ready_for(config: AuditConfig, networks: Sequence[nn.Module]) -> Ready:
    """What an audit measures, checked, with these networks in memory.

    Raises:
        InputError: images, plan and networks that do not go together.
    """
    cohort, donors, exact = _images(config)
    shape = config.plan.confounder == "shape"
    return ready(networks, cohort, config.plan, donors, None if shape else exact, exact if shape else None)


def _images(config: AuditConfig) -> tuple[Cohort, Cohort | None, Intervention | None]:
    """The test images, the donors, and the exact intervention where the confounder is planted in the images."""
    plan, data = config.plan, config.data
    donors = load_cohort(config.donors) if plan.confounder == "shape" and config.donors is not None else None
    if isinstance(data, BrainConfig) and plan.confounder in {c.kind for c in data.confounders}:
        toggle, cohort = simulated(data, plan.confounder, doses=plan.doses)
        return cohort, donors, toggle
    if plan.confounder == "shape":
        configs = (data, config.donors)
        return *alike(load_cohort(data), donors, _classes(config), beside="donors", configs=configs), None
    raise InputError(
        f"plan.confounder: expected shape, or an object planted in a simulated cohort, got {plan.confounder!r}; "
        "for your own pairs of images with and without it use cfx.audit with a cfx.confounder.planted.Toggle"
    )


CONFIG = AuditConfig


def command(config: AuditConfig, words: str) -> str:
    """Run, and say what came out."""
    reliance = audit_run(config).reliance
    files = "report.html, atlas.zarr, summary.json, plan.json"
    return f"{reliance.verdict}: {reliance.sentence}\n\nwrote {config.folder}/{files}"
