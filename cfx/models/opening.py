"""Any network a configuration may name, opened: one function for `classifier:`, `oracle:`, `generator:`.

    a cfx checkpoint folder             as `cfx.models.load`
    a folder of diffusers               `UNet2DModel` with its scheduler, `AutoencoderKL`, a pipeline of them
    a TorchScript or torch.export file  the graph in it
    a state dict                        of MONAI, monai-generative or cfx, with `network` and `keywords`
    package.module:callable             what calling it returns

What is at a path is told by its contents (`cfx.models.weights`), not its name. **What runs code:** `package.module:
callable` imports that module, from the current directory too, and calls what it names: as much as running a program of
yours. A TorchScript or torch.export file runs its own graph of tensor operations. Nothing else does; nothing is
unpickled beyond tensors.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, cast, get_args

from pydantic import Field
from torch import nn

from cfx.core.denoiser import Denoiser, Generative
from cfx.core.errors import CfxError, CheckpointError, InputError, in_one_line
from cfx.core.schedule import Schedule
from cfx.models.adapt import Output, Pixels, adapt, finding_of
from cfx.models.autoencoder import Vae, as_vae
from cfx.models.checkpoint import MANIFEST, read_manifest
from cfx.models.checkpoint import load as load_checkpoint
from cfx.models.exported import read_exported
from cfx.models.folders import diffusers_model, is_diffusers, labels_of, read_schedule
from cfx.models.interop import load_network_state
from cfx.models.kinds import find
from cfx.models.samplers.sampler import MaskSampler
from cfx.models.weights import contents, read_script, read_state
from cfx.runtime.config import Frozen, check, expanded
from cfx.runtime.shipped import located

Role = Literal["classifier", "oracle", "generator", "autoencoder", "segmenter"]

_IMPORT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_CHOICES = (
    "a cfx checkpoint folder, a diffusers folder, a TorchScript, torch.export or state-dict file, or "
    "package.module:callable"
)


class NetworkSpec(Frozen):
    """A network, what it is, and how it speaks; one text alone is its `path`."""

    path: str
    """A cfx or diffusers folder, a TorchScript, torch.export or state-dict file, or `package.module:callable`, whose
    module is imported and so runs."""
    network: str | None = None
    """Of a state dict: registry name of its network, such as `monai-densenet121` (`cfx.models.BUILDERS`)."""
    keywords: dict[str, Any] = Field(default_factory=dict)
    """What builds the network, or what the callable is called with."""
    key: str | None = None
    """Where in the file the state dict is, if not at its top: `model`, or `state.model`."""
    schedule: dict[str, Any] | str | None = None
    """Of a denoiser: a scheduler's configuration as diffusers or MONAI has it, or the path of one; by default that of
    its folder."""
    labels: int | None = Field(default=None, ge=1)
    """Of a denoiser with class labels: how many, without the one that means "no label", which comes last."""
    pixels: Pixels | None = None
    """Of a classifier: how it wants its images; null for values in [-1, 1]."""
    output: Output | None = None
    """Of a classifier: how it answers; null for logits."""

    @property
    def place(self) -> Path:
        """The path with `~` and `$NAME` put in; of the bare name of a shipped network, its folder."""
        return located(expanded(self.path))

    @property
    def name(self) -> str:
        """What reports call it: the last part of its path."""
        return self.path if self.imports else self.place.name

    @property
    def imports(self) -> bool:
        """Whether it names something in a module; a path that exists is a path."""
        return bool(_IMPORT.fullmatch(self.path)) and not self.place.exists()


Network = str | NetworkSpec
"""A network as configurations take it."""
Described = str | Path | Mapping[str, Any] | NetworkSpec
"""A network as Python takes it."""


def spec_of(network: Described) -> NetworkSpec:
    """A network's description, of its path alone or of plain values.

    Raises:
        InputError: a key or value that is no part of `NetworkSpec`.
    """
    if isinstance(network, NetworkSpec):
        return network
    return check(NetworkSpec, network if isinstance(network, Mapping) else {"path": str(network)}, "network")


def open_network(network: Described, role: Role = "classifier") -> nn.Module:
    """Open a network for a role, in evaluation mode, on the CPU.

    Args:
        network: Its path, or a `NetworkSpec`, or the mapping of one.
        role: `classifier` and `oracle` give images in [-1, 1] to logits (`cfx.models.adapt`); `generator` a diffusion
            model; `autoencoder` what encodes and decodes; `segmenter` what draws masks.

    Raises:
        InputError: a network that does not suit the role, or settings that do not suit the network.
        CheckpointError: a file that is damaged, or whose weights are another network's.
    """
    if role not in get_args(Role):
        raise InputError(f"role: expected one of {list(get_args(Role))}, got {role!r}")
    spec = spec_of(network)
    opened = _opened(spec, role)
    if role in ("classifier", "oracle"):
        found = _classifier(opened, spec, role)
    else:
        _no_adapting(spec, role)
        found = _suited(opened, spec, role)
    return _at_rest(found)


def load(path: str | Path) -> nn.Module:
    """Load a network as what it is; by its bare name one that is shipped (`brain64-classifier`).

    What a path alone does not say (of which network the tensors of a file are, how a network wants its images and
    answers, the noise schedule of a bare one) `open_network` is told.

    Args:
        path: A checkpoint folder of cfx, which comes back as what it was saved from (`cfx.models.checkpoint.load`); or
            whatever else a configuration may name: a folder of diffusers, a file of TorchScript or torch.export,
            `package.module:callable`.

    Returns:
        The network, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: nothing there, or something damaged or unknown.
        InputError: a file of tensors alone, a denoiser without its schedule, or a callable that fails.
    """
    spec = spec_of(path)
    if not spec.imports and (not spec.place.exists() or (spec.place / MANIFEST).exists()):
        return load_checkpoint(path)
    try:
        return _at_rest(_opened(spec, "network"))
    except InputError as error:
        if spec.imports:
            raise
        call = f"cfx.models.open_network({{'path': {spec.path!r}, ...}}, role)"
        raise InputError(f"{error}; to say more than the path, {call}, role one of {list(get_args(Role))}") from error


def _at_rest(network: nn.Module) -> nn.Module:
    """The network in evaluation mode."""
    with suppress(NotImplementedError):  # an exported graph keeps the mode it was exported in
        network.eval()
    return network


def _opened(spec: NetworkSpec, role: str) -> nn.Module:
    """The module that a description leads to, whatever it is for."""
    if spec.imports:
        return _imported(spec, role)
    place = spec.place
    if place.is_dir():
        return _of_folder(spec, role)
    if not place.is_file():
        raise CheckpointError(f"{role}: nothing at {spec.path!r}; expected {_CHOICES}")
    match contents(place):
        case "torchscript":
            return read_script(place)
        case "exported":
            return read_exported(place)
    if spec.network is None:
        raise InputError(
            f"{role}: {place} holds tensors and does not say of which network; name it, network: a registry name such "
            "as monai-densenet121, and keywords: what builds it"
        )
    return load_network_state(spec.network, read_state(place, spec.key), spec.keywords, str(place))


def _of_folder(spec: NetworkSpec, role: str) -> nn.Module:
    place = spec.place
    if (place / MANIFEST).exists():
        return load_checkpoint(place)
    if is_diffusers(place):
        return diffusers_model(place, schedule=schedule_of(spec), labels=spec.labels)
    found = ", ".join(sorted(p.name for p in place.iterdir())[:6]) or "nothing"
    hint = "; for a model of transformers name a function that loads it, package.module:callable"
    more = hint if (place / "config.json").exists() else ""
    raise CheckpointError(
        f"{role}: {MANIFEST} is missing; {place} holds {found}; expected {MANIFEST} or diffusers' config.json{more}"
    )


def _imported(spec: NetworkSpec, role: str) -> nn.Module:
    """What a callable in a module returns; the module is found as `python -m` would."""
    module, _, name = spec.path.partition(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{role}: expected {name} in the module {module}, {in_one_line(error)}") from error
    except Exception as error:
        raise InputError(f"{role}: the module {module} failed when imported: {in_one_line(error)}") from error
    if not isinstance(found, nn.Module):
        found = _called(found, spec, role)
    if not isinstance(found, nn.Module):
        raise InputError(f"{role}: expected {spec.path} to return a torch module, got {type(found).__name__}")
    return found


def _called(make: Callable[..., object], spec: NetworkSpec, role: str) -> object:
    try:
        return make(**spec.keywords)
    except CfxError:
        raise
    except Exception as error:
        raise InputError(f"{role}: {spec.path} failed when called: {in_one_line(error)}") from error


def _classifier(opened: nn.Module, spec: NetworkSpec, role: str) -> nn.Module:
    """A network as a classifier of images in [-1, 1]."""
    output = _output(spec, role)
    if isinstance(opened, Generative | Vae):
        raise InputError(f"{role}: expected a classifier, got {type(opened).__name__} of {spec.path}")
    if spec.pixels is None and output is None:
        return opened
    return adapt(opened, pixels=spec.pixels, output=output)


def _output(spec: NetworkSpec, role: str) -> Output | None:
    """How a classifier answers, with what its own checkpoint says of it.

    Raises:
        InputError: a checkpoint that is no classifier, or that lacks what its kind needs to be asked.
    """
    if spec.imports or not (spec.place / MANIFEST).exists():
        return spec.output
    manifest, output = read_manifest(spec.place), spec.output or Output()
    if manifest.kind == "regressor" and output.kind != "regression":
        raise InputError(
            f"{role}: {spec.path} predicts {manifest.facts.get('targets')}; expected output: {{kind: regression, "
            "goal: the value to reach, tolerance: how near}"
        )
    if manifest.kind not in ("classifier", "regressor"):
        raise InputError(f"{role}: expected a classifier's checkpoint, got {spec.path}: {find(manifest.kind).use}")
    if not manifest.multilabel:
        return spec.output
    names = output.classes or manifest.classes
    output = Output(**{**output.model_dump(), "kind": "multilabel", "classes": names})
    try:
        finding_of(output)
    except InputError as error:
        raise InputError(f"{role}: {spec.path} has independent findings (multilabel): {error}") from error
    return output


def _suited(opened: nn.Module, spec: NetworkSpec, role: str) -> nn.Module:
    """A network as a generator, an autoencoder or a segmenter.

    Raises:
        InputError: it is none.
    """
    if role == "autoencoder":
        return as_vae(opened)
    if role == "generator":
        return _generator(opened, spec, role)
    if not isinstance(opened, MaskSampler):
        raise InputError(
            f"{role}: expected a network that draws masks (cfx train with objective.kind: masks), got "
            f"{type(opened).__name__} of {spec.path}; one that gives a single mask has no distribution"
        )
    return opened


def _no_adapting(spec: NetworkSpec, role: str) -> None:
    given = [name for name in ("pixels", "output") if getattr(spec, name) is not None]
    if given:
        raise InputError(f"{role}.{given[0]}: only for classifiers; a {role} works on images in [-1, 1]")


def _generator(opened: nn.Module, spec: NetworkSpec, role: str) -> nn.Module:
    """A diffusion model; a bare network becomes one with its schedule."""
    if isinstance(opened, Generative):
        return cast(nn.Module, opened)
    if isinstance(opened, Vae) or (not spec.imports and (spec.place / MANIFEST).exists()):
        raise InputError(f"{role}: expected a diffusion checkpoint, got {type(opened).__name__}")
    schedule = schedule_of(spec)
    if schedule is None:
        raise InputError(
            f"{role}.schedule: {spec.path} is a bare network, and a denoiser needs its schedule of noise; expected a "
            "scheduler's configuration, as diffusers or MONAI has it, or the path of one"
        )
    return Denoiser(opened, schedule, classes=labels_of(opened, spec.labels))


def schedule_of(spec: NetworkSpec) -> Schedule | None:
    """The schedule that a description gives, if it does."""
    if isinstance(spec.schedule, str):
        return read_schedule(expanded(spec.schedule))
    return None if spec.schedule is None else read_schedule(spec.schedule)
