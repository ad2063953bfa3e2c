"""A checkpoint is a folder: `cfx.json` (what it is), `model.safetensors` (weights), `README.md` (model card).

What is wrapped round a network, and which further parts have weights, is the affair of its kind (`cfx.models.kinds`).
Denoisers also carry `scheduler_config.json`, which diffusers' schedulers read. `cfx.json` records the SHA-256 of the
other files, the card among them, and of itself; loading checks them and never unpickles.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from torch import nn

from cfx.core.errors import CheckpointError, InputError
from cfx.models.card import model_card
from cfx.models.kinds import MODEL, SCHEMA, Manifest, find
from cfx.models.registry import kind as kind_of
from cfx.runtime.files import atomic_folder, check_files, digest, read_tensors, sha256, write_tensors
from cfx.runtime.places import recover
from cfx.runtime.shipped import located, names

MANIFEST, SCHEDULER, CARD = "cfx.json", "scheduler_config.json", "README.md"


def save(
    path: str | Path,
    model: nn.Module,
    *,
    name: str,
    config: Mapping[str, Any],
    kind: str | None = None,
    facts: Mapping[str, Any] | None = None,
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
        model: A network that `build(name, **config)` makes, in what its kind wraps round it (a `Denoiser`, say).
        name: Registry name of the network.
        config: Keywords that build it.
        kind: What the model is for, one of `cfx.models.kinds.KINDS`; what the network is for by default.
        facts: What the kind needs besides and the model cannot say (`latent`: the `autoencoder`, its name and config).
        shape: Images it accepts, `(c, *space)`; a denoiser's own by default.
        classes: Names of the labels.
        multilabel: Whether a classifier's logits are independent labels.
        provenance: Where the weights come from (`command`, `steps`, `hardware`, `figures`, ...), JSON values.
        title: Heading of the model card; the folder's name by default.
        card: Text that opens the model card: intended use, data, limits.

    Returns:
        What was written to `cfx.json`.

    Raises:
        InputError: unknown name or kind, a model of another kind, or `config` does not build a network with these
            weights.
    """
    path, kind = Path(path), kind or kind_of(name)
    known: dict[str, Any] = {"kind": kind, "name": name, "config": plain(config), "classes": tuple(classes)}
    known |= {"multilabel": multilabel, "provenance": plain(provenance or {}), "facts": plain(facts or {})}
    manifest = _described(model, Manifest(**known), shape)
    parts, made = find(kind).parts(model), find(kind).parts(find(kind).make(manifest))
    for part, network in parts.items():
        check_same(network, made[part], name if part == MODEL else part)
    with atomic_folder(path) as folder:
        for part, network in parts.items():
            write_tensors(folder / _weights(part), network.state_dict())
        if manifest.schedule is not None:
            (folder / SCHEDULER).write_text(json.dumps(manifest.schedule, indent=2) + "\n")
        (folder / CARD).write_text(model_card(title or path.name, manifest.model_dump(mode="json"), card))
        files = {file.name: sha256(file) for file in sorted(folder.iterdir())}
        manifest = manifest.model_copy(update={"files": files})
        values = manifest.model_dump(mode="json")
        (folder / MANIFEST).write_text(json.dumps(values | {"sha256": digest(values)}, indent=2) + "\n")
    return manifest


def _described(model: nn.Module, manifest: Manifest, shape: Sequence[int] | None) -> Manifest:
    """A manifest with what the model itself knows; a shape that is given goes before its own."""
    own = plain(find(manifest.kind).facts(model))
    values = manifest.model_dump() | own | {"facts": manifest.facts | own.get("facts", {})}
    return Manifest(**values | ({} if shape is None else {"shape": tuple(shape)}))


def _weights(part: str) -> str:
    """File of the weights of one part."""
    return f"{part}.safetensors"


def read_manifest(path: str | Path) -> Manifest:
    """Read and verify `cfx.json` of a checkpoint folder.

    Raises:
        CheckpointError: missing, not JSON, changed since it was written, or of an unknown schema.
    """
    recover(Path(path))
    file = located(path) / MANIFEST
    try:
        values = json.loads(file.read_text())
        recorded = values.pop("sha256", "none")
    except FileNotFoundError as error:
        expected = f"expected a checkpoint folder with cfx.json, or the name of one that is shipped {names()}"
        raise CheckpointError(f"{file}: missing; {expected}") from error
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
    """Load a checkpoint folder, or by its bare name one that is shipped (`brain64-classifier`).

    Returns:
        What its kind makes of the network: a `Denoiser` (with schedule, number of labels and shape), a
        `LatentDiffusion` (both with the `names` of their labels and the `figures` of their card), an autoencoder with
        `encode` and `decode`, a classifier (with the names of its `classes`, if they are known), a segmenter (both to
        logits), a `Regressor` (to values) or `PooledFeatures`; in evaluation mode, on the CPU.

    Raises:
        CheckpointError: a file is missing, truncated or changed (named, with both hashes), the schema or the kind is
            unknown, or the weights do not fit the network that `cfx.json` names.
    """
    place = located(path)
    model, _ = _load(place)
    manifest = read_manifest(place)
    if manifest.kind == "classifier" and manifest.classes and not manifest.multilabel:
        model.classes = manifest.classes  # type: ignore[assignment]  # whoever asks it can compare them by name
    if manifest.schedule is not None:  # a generator, whose `classes` are their number
        model.names, model.figures = manifest.classes, manifest.provenance.get("figures", {})  # type: ignore[assignment]
    return model


def load_network(path: str | Path) -> nn.Module:
    """The bare network of a checkpoint, without what its kind wraps round it: what a run may start from.

    Raises:
        CheckpointError: as `load`.
    """
    _, parts = _load(located(path))
    return parts[MODEL]


def verify_checkpoint(path: str | Path) -> list[str]:
    """Read everything in a checkpoint folder, and build its network: what is wrong, a sentence each, if anything.

    A card of an older version is not among the files that its manifest proves, and is passed over.
    """
    place = located(path)
    try:
        manifest = read_manifest(place)
    except CheckpointError as error:
        return [str(error)]
    faults = []
    for name, expected in manifest.files.items():
        try:
            check_files(place, {name: expected})
        except CheckpointError as error:
            faults.append(str(error))
    if not faults:
        try:
            _load(place)
        except CheckpointError as error:
            faults.append(str(error))
    return faults


def _load(path: Path) -> tuple[nn.Module, Mapping[str, nn.Module]]:
    """The model and its parts."""
    manifest = read_manifest(path)
    check_files(path, {name: expected for name, expected in manifest.files.items() if name != CARD})  # for its owner
    try:
        kind = find(manifest.kind)
        model = kind.make(manifest)
        parts = kind.parts(model)
        for part, network in parts.items():
            if _weights(part) not in manifest.files:
                raise CheckpointError(f"{path / MANIFEST}: expected the hash of {_weights(part)} among files, got none")
            network.load_state_dict(read_tensors(path / _weights(part)))
    except (InputError, RuntimeError) as error:
        raise CheckpointError(f"{path}: the weights do not fit network {manifest.name}: {error}") from error
    if manifest.multilabel:
        model.multilabel = True  # type: ignore[assignment]  # nobody may take its findings for exclusive classes
    return model.eval(), parts


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
