"""Models of diffusers' folders: a denoising U-Net with its scheduler, a KL autoencoder, or a pipeline of both.

A folder of a model has `config.json`, which names its class and keywords, and the weights; one of a pipeline has
`model_index.json` and a folder a part (`unet`, `scheduler`, `vae`). The network is built from its keywords and the
weights are read as tensors: no class is looked up by a name in a file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from cfx.core.denoiser import Denoiser
from cfx.core.errors import CheckpointError, InputError
from cfx.core.schedule import Schedule
from cfx.models.latent import LatentDiffusion
from cfx.models.registry import build
from cfx.models.weights import fill, read_state

CLASSES = {"UNet2DModel": "diffusers-unet2d", "AutoencoderKL": "diffusers-autoencoder-kl"}
"""diffusers' classes that can be read -> their registry names."""
INDEX, CONFIG, SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_PARTS = frozenset({"unet", "scheduler", "vae"})


def is_diffusers(folder: Path) -> bool:
    """Whether a folder is of diffusers."""
    if (folder / INDEX).exists() or (folder / "unet" / CONFIG).exists():
        return True
    return (folder / CONFIG).exists() and "_class_name" in read_json(folder / CONFIG)


def diffusers_model(folder: Path, *, schedule: Schedule | None = None, labels: int | None = None) -> nn.Module:
    """The model of a folder: a `Denoiser`, a `LatentDiffusion`, or an autoencoder.

    Args:
        folder: Of a model or of a pipeline.
        schedule: The denoiser's schedule; that of the scheduler's configuration in the folder, or in `scheduler/` in it
            or beside it, by default.
        labels: Class labels of a conditional U-Net, without the one for "no label", which comes last.

    Raises:
        InputError: a class, scheduler or part that cfx cannot use, or no schedule.
        CheckpointError: files that are missing or damaged.
    """
    if not (folder / CONFIG).exists():
        return _pipeline(folder, schedule, labels)
    _, _, network = read_model(folder)
    if not hasattr(network, "encode"):
        return _denoiser(folder, network, schedule, labels)
    return network


def _pipeline(folder: Path, schedule: Schedule | None, labels: int | None) -> nn.Module:
    parts = {p.parent.name for p in folder.glob(f"*/{CONFIG}")} | {p.parent.name for p in folder.glob(f"*/{SCHEDULER}")}
    if more := sorted(parts - _PARTS):
        raise InputError(f"{folder}: expected a pipeline of unet, scheduler and vae, got {more} too")
    if "unet" not in parts:
        raise CheckpointError(f"{folder}: expected unet/{CONFIG}, got the parts {sorted(parts)}")
    _, _, network = read_model(folder / "unet")
    denoiser = _denoiser(folder, network, schedule, labels)
    if "vae" not in parts:
        return denoiser
    _, _, autoencoder = read_model(folder / "vae")
    return LatentDiffusion(autoencoder, denoiser)


def read_model(folder: Path) -> tuple[str, dict[str, Any], nn.Module]:
    """Registry name, keywords and network of a model's folder.

    Raises:
        InputError: a class that cfx cannot build.
        CheckpointError: files that are missing or damaged.
    """
    config = read_json(folder / CONFIG)
    name, keywords = str(config.get("_class_name")), {k: v for k, v in config.items() if not k.startswith("_")}
    if name not in CLASSES:
        raise InputError(f"{folder}: expected diffusers' {' or '.join(CLASSES)}, got {name}")
    network = build(CLASSES[name], **keywords)
    weights = next((folder / file for file in _WEIGHTS if (folder / file).exists()), None)
    if weights is None:
        raise CheckpointError(f"{folder}: expected {' or '.join(_WEIGHTS)}, in one piece and of no variant; got none")
    inner = getattr(network, "network", network)
    fill(inner, read_state(weights), str(weights))
    return CLASSES[name], keywords, network


def _denoiser(folder: Path, network: Any, schedule: Schedule | None, labels: int | None) -> Denoiser:  # noqa: ANN401
    """A U-Net with the schedule of its folder, for the images of its configuration."""
    places = [folder / SCHEDULER, folder / "scheduler" / SCHEDULER]
    places += [folder.parent / "scheduler" / SCHEDULER] if folder.name == "unet" else []
    there = next((p for p in places if p.exists()), None)
    if schedule is None and there is None:
        raise InputError(f"schedule: expected {SCHEDULER} in {folder} or in scheduler/ there, or the key schedule")
    schedule = schedule or read_schedule(Path(str(there)))
    size, c = network.config.sample_size, network.config.in_channels
    shape = None if size is None else (c, *((size, size) if isinstance(size, int) else size))
    return Denoiser(network, schedule, classes=labels_of(network, labels), shape=shape)


def labels_of(network: nn.Module, labels: int | None) -> int | None:
    """Number of class labels of a denoising network, which embeds one more, for "no label".

    Raises:
        InputError: it embeds labels and their number is not given, or another one.
    """
    table: Any = getattr(network, "class_embedding", None)
    embedded = getattr(table, "num_embeddings", None)
    if embedded is None or labels == embedded - 1:
        return labels
    which = f"labels: {embedded - 1}, if the last of its {embedded} embeddings means 'no label'"
    raise InputError(
        f"generator.labels: this network is conditioned on labels; expected {which}, got {labels}. cfx needs that one; "
        "a network that was never trained without a label cannot be used"
    )


def read_schedule(given: Path | Mapping[str, Any]) -> Schedule:
    """The schedule of a scheduler's configuration: diffusers' (`beta_schedule`, ...) or MONAI's (`schedule`, ...).

    Args:
        given: The configuration, its file, or the folder of its file.

    Raises:
        InputError: a scheduler without a table of betas, or unknown values.
        CheckpointError: no such file.
    """
    if isinstance(given, Path):
        given = read_json(given / SCHEDULER if given.is_dir() else given)
    monai = "schedule" in given or "monai" in str(given.get("_target_", ""))
    return Schedule.from_monai(given) if monai else Schedule.from_diffusers(given)


def read_json(path: Path) -> dict[str, Any]:
    """A file of one JSON object.

    Raises:
        CheckpointError: missing, or something else.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a JSON object, {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found
