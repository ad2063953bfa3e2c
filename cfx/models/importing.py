"""Networks of other packages as checkpoints of cfx: those that a registry name and keywords build again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cfx.core.errors import InputError
from cfx.models.checkpoint import MANIFEST, save
from cfx.models.folders import CONFIG, is_diffusers, read_model
from cfx.models.interop import keywords_today
from cfx.models.kinds import Manifest
from cfx.models.opening import NetworkSpec, Role, open_network
from cfx.models.registry import kind
from cfx.runtime.files import sha256

_ROLES: dict[str, Role] = {"denoiser": "generator", "vae": "autoencoder", "classifier": "classifier"}


class Named(NamedTuple):
    """What builds a network again.

    Attributes:
        name: Registry name.
        keywords: What builds it.
        autoencoder: Name and keywords of the autoencoder of a latent generator, or None.
    """

    name: str
    keywords: Mapping[str, Any]
    autoencoder: Mapping[str, Any] | None = None


def import_network(
    spec: NetworkSpec, path: str | Path, *, classes: Sequence[str] = (), multilabel: bool = False
) -> Manifest:
    """Write a checkpoint folder of the network of a state dict or of a folder of diffusers.

    Args:
        spec: The network: a state dict with `network` and `keywords`, or a folder of diffusers.
        path: Folder to write.
        classes: Names of the labels, in order.
        multilabel: Whether a classifier's logits are independent findings.

    Returns:
        What was written to `cfx.json`.

    Raises:
        InputError: a network that no registry name builds, or settings that a checkpoint does not keep.
        CheckpointError: files that are missing, damaged, or another network's.
    """
    for key in ("pixels", "output"):
        if getattr(spec, key) is not None:
            raise InputError(f"source.{key}: a checkpoint keeps the network alone; expected {key} where it is used")
    named = _named(spec)
    model = open_network(spec, _role(named))
    latent = named.autoencoder is not None
    return save(
        path, model, name=named.name, config=named.keywords, kind="latent" if latent else None,
        facts={"autoencoder": named.autoencoder} if latent else None, classes=classes, multilabel=multilabel,
        provenance={"imported from": spec.name, "files": _hashes(spec.place)},
    )  # fmt: skip


def _named(spec: NetworkSpec) -> Named:
    """What builds the network of a description again."""
    if spec.imports or not spec.place.exists() or (spec.place / MANIFEST).exists():
        raise InputError(f"source.path: expected a state dict or a folder of diffusers, got {spec.path!r}")
    if spec.place.is_dir() and is_diffusers(spec.place):
        return _of_folder(spec.place)
    if spec.network is None:
        raise InputError(
            "source.network: expected the registry name that builds the network again, got none; a graph in a file "
            "(TorchScript, torch.export) needs no import, its path is enough"
        )
    monai = spec.network in ("monai-diffusion-unet", "monai-autoencoder-kl")
    return Named(spec.network, keywords_today(spec.keywords) if monai else spec.keywords)


def _of_folder(folder: Path) -> Named:
    if (folder / CONFIG).exists():
        return Named(*read_model(folder)[:2])
    name, keywords, _ = read_model(folder / "unet")
    if not (folder / "vae" / CONFIG).exists():
        return Named(name, keywords)
    of, its, _ = read_model(folder / "vae")
    return Named(name, keywords, {"name": of, "config": its})


def _role(named: Named) -> Role:
    return _ROLES[kind(named.name)]


def _hashes(place: Path) -> dict[str, str]:
    """SHA-256 of the file, or of the files of a folder."""
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    return {str(file.relative_to(place.parent)): sha256(file) for file in files if file.is_file()}
