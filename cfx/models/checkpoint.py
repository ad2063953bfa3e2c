"""A checkpoint is a folder: `cfx.json` (what it is), `model.safetensors` (weights), `README.md` (model card).

Denoisers also carry `scheduler_config.json`, which diffusers' schedulers read. `cfx.json` records the SHA-256 of the
other files and of itself; loading checks them and never unpickles.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from cfx.core.denoiser import Denoiser
from cfx.core.errors import CheckpointError, InputError
from cfx.core.schedule import Schedule
from cfx.models.card import model_card
from cfx.models.registry import build, kind
from cfx.runtime.files import atomic_folder, check_files, digest, read_tensors, sha256, write_tensors

SCHEMA = 1
WEIGHTS, MANIFEST, SCHEDULER, CARD = "model.safetensors", "cfx.json", "scheduler_config.json", "README.md"


class Manifest(BaseModel):
    """The contents of `cfx.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    schema_version: int = SCHEMA
    """Version of this format."""
    kind: Literal["denoiser", "vae", "classifier"]
    """What the network is for."""
    name: str
    """Registry name of the network."""
    config: dict[str, Any]
    """Keywords that build it."""
    shape: tuple[int, ...] | None = None
    """Images it accepts, `(c, *space)`; None for any."""
    classes: tuple[str, ...] = ()
    """Names of the labels, in order."""
    multilabel: bool = False
    """Whether a classifier's logits are independent labels."""
    labels: int | None = None
    """Number of labels a denoiser is conditioned on; None for an unconditional one."""
    schedule: dict[str, Any] | None = None
    """diffusers scheduler configuration of a denoiser."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Where the weights come from: command, config, steps, versions, git commit, figures."""
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the other files."""


def save(
    path: str | Path,
    model: nn.Module,
    *,
    name: str,
    config: Mapping[str, Any],
    shape: Sequence[int] | None = None,
    classes: Sequence[str] = (),
    multilabel: bool = False,
    provenance: Mapping[str, Any] | None = None,
    title: str | None = None,
    card: str | None = None,
) -> Manifest:
    """Write a checkpoint folder; it appears whole or not at all.

    Args:
        path: Folder to write; one already there is replaced.
        model: A `Denoiser`, or a network that `build(name, **config)` makes.
        name: Registry name of the network.
        config: Keywords that build it.
        shape: Images it accepts, `(c, *space)`; a denoiser's own by default.
        classes: Names of the labels.
        multilabel: Whether a classifier's logits are independent labels.
        provenance: Where the weights come from (`command`, `steps`, `hardware`, `figures`, ...), JSON values.
        title: Heading of the model card; the folder's name by default.
        card: Text that opens the model card: intended use, data, limits.

    Returns:
        What was written to `cfx.json`.

    Raises:
        InputError: unknown name, or `config` does not build a network with these weights.
    """
    path, denoiser = Path(path), isinstance(model, Denoiser)
    network = cast(nn.Module, model.network) if denoiser else model
    check_same(network, build(name, **config), name)
    facts: dict[str, Any] = {"kind": kind(name), "name": name, "config": plain(config), "classes": tuple(classes)}
    facts |= {"multilabel": multilabel, "provenance": plain(provenance or {}), "shape": shape and tuple(shape)}
    if isinstance(model, Denoiser):
        facts |= {"labels": model.classes, "schedule": plain(model.schedule.to_diffusers())}
        facts["shape"] = facts["shape"] or model.shape
    elif facts["kind"] == "denoiser":
        raise InputError(f"model: expected a Denoiser for network {name}, got {type(model).__name__}")
    with atomic_folder(path) as folder:
        write_tensors(folder / WEIGHTS, network.state_dict(), cfx_schema=str(SCHEMA), name=name)
        if facts.get("schedule"):
            (folder / SCHEDULER).write_text(json.dumps(facts["schedule"], indent=2) + "\n")
        files = {file.name: sha256(file) for file in sorted(folder.iterdir())}
        manifest = Manifest(**facts, files=files)
        (folder / CARD).write_text(model_card(title or path.name, manifest.model_dump(mode="json"), card))
        values = manifest.model_dump(mode="json")
        (folder / MANIFEST).write_text(json.dumps(values | {"sha256": digest(values)}, indent=2) + "\n")
    return manifest


def read_manifest(path: str | Path) -> Manifest:
    """Read and verify `cfx.json` of a checkpoint folder.

    Raises:
        CheckpointError: missing, not JSON, changed since it was written, or of an unknown schema.
    """
    file = Path(path) / MANIFEST
    try:
        values = json.loads(file.read_text())
        recorded = values.pop("sha256", "none")
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: missing; expected a checkpoint folder with cfx.json") from error
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{file}: expected a JSON object, {error}") from error
    if values.get("schema_version") != SCHEMA:
        raise CheckpointError(f"{file}: expected schema version {SCHEMA}, got {values.get('schema_version')}")
    if digest(values) != recorded:
        raise CheckpointError(f"{file}: damaged; expected SHA-256 {recorded}, got {digest(values)}")
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise CheckpointError(f"{file}: {error}") from error


def load(path: str | Path) -> nn.Module:
    """Load a checkpoint folder.

    Returns:
        A `Denoiser` (with schedule, number of labels and shape), a classifier, or an autoencoder with `encode` and
        `decode`; in evaluation mode, on the CPU.

    Raises:
        CheckpointError: a file is missing, truncated or changed (named, with both hashes), the schema is unknown, or
            the weights do not fit the network that `cfx.json` names.
    """
    path = Path(path)
    manifest = read_manifest(path)
    if WEIGHTS not in manifest.files:
        raise CheckpointError(f"{path / MANIFEST}: expected the hash of {WEIGHTS} among files, got none")
    check_files(path, manifest.files)
    try:
        network = build(manifest.name, **manifest.config)
        network.load_state_dict(read_tensors(path / WEIGHTS))
    except (InputError, RuntimeError) as error:
        raise CheckpointError(f"{path}: the weights do not fit network {manifest.name}: {error}") from error
    if manifest.kind != "denoiser":
        return network.eval()
    schedule = Schedule.from_diffusers(manifest.schedule)
    return Denoiser(network, schedule, classes=manifest.labels, shape=manifest.shape).eval()


def check_same(network: nn.Module, built: nn.Module, name: str) -> None:
    """Refuse a network whose tensors are not those of the one its name and keywords build.

    Raises:
        InputError: tensor names or shapes differ.
    """
    mine = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    theirs = {k: tuple(v.shape) for k, v in built.state_dict().items()}
    if mine != theirs:
        differ = sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))
        raise InputError(f"config: network {name} built from it has other tensors than model: {differ[:4]} ...")


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values as JSON would give them back (tuples become lists).

    Raises:
        InputError: a value that JSON cannot hold.
    """
    try:
        return cast(dict[str, Any], json.loads(json.dumps(dict(values))))
    except (TypeError, ValueError) as error:
        raise InputError(f"expected values that JSON can hold, {error}") from error
