"""Weights of the archived monai-generative package, for MONAI's networks of today.

The classes moved into MONAI with renamed tensors and arguments; MONAI's `load_old_state_dict` translates the tensors.
One thing it does not know: monai-generative's self-attention owns an output projection (`proj_attn`) that its forward
never calls, so the projection in a checkpoint is still its random initial value. MONAI applies it. Here it is set to
the identity, which is what the network was trained with.
"""

import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from torch import Tensor, nn

from cfx.core.errors import CheckpointError, InputError
from cfx.runtime.files import read_tensors

RENAMED = {"num_channels": "channels"}
"""Constructor arguments of monai-generative -> their names in MONAI."""
DROPPED = ("use_checkpointing",)
"""Constructor arguments that MONAI no longer takes and that do not change the function."""


def load_monai_generative(
    kind: str, weights: str | Path | Mapping[str, Tensor], config: Mapping[str, Any]
) -> nn.Module:
    """MONAI's network with the weights of a monai-generative one.

    Args:
        kind: `unet` (DiffusionModelUNet) or `autoencoder-kl` (AutoencoderKL).
        weights: A state dict, or a file that holds one: safetensors, or `torch.save` (read with `weights_only=True`,
            so nothing is executed).
        config: Constructor arguments as they were given to monai-generative (or as MONAI names them today).

    Returns:
        The network in evaluation mode. It is MONAI's own class: a U-Net is called as
        `network(x, timesteps=..., class_labels=...)`, an autoencoder has `encode` (mean, std) and `decode`.

    Raises:
        InputError: unknown kind, or arguments that MONAI's class does not take.
        CheckpointError: not a file of tensors, or tensors that do not fit the network.
    """
    network = _network(kind, config)
    state = dict(weights) if isinstance(weights, Mapping) else _read(Path(weights))
    state_names = list(state)  # loading empties the dictionary
    try:
        with redirect_stdout(io.StringIO()):  # MONAI prints what it renames
            network.load_old_state_dict(state)  # type: ignore[operator]
    except (RuntimeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"weights: expected those of a monai-generative {kind} with this config, {error}"
        ) from error
    if any("proj_attn" in key for key in state_names):
        _bypass_projections(network)
    return network.eval()


@torch.no_grad()
def _bypass_projections(network: nn.Module) -> None:
    """Make the output projection of every spatial self-attention the identity."""
    from monai.networks.blocks.spatialattention import SpatialAttentionBlock

    for module in network.modules():
        if isinstance(module, SpatialAttentionBlock):
            projection = cast(nn.Linear, module.get_submodule("attn.out_proj"))
            nn.init.eye_(projection.weight)
            nn.init.zeros_(projection.bias)


def _network(kind: str, config: Mapping[str, Any]) -> nn.Module:
    from monai.networks.nets import AutoencoderKL, DiffusionModelUNet

    classes = {"unet": DiffusionModelUNet, "autoencoder-kl": AutoencoderKL}
    if kind not in classes:
        raise InputError(f"kind: expected one of {sorted(classes)}, got {kind!r}")
    make: Callable[..., nn.Module] = classes[kind]
    keywords = {RENAMED.get(k, k): v for k, v in config.items() if k not in DROPPED}
    try:
        return make(**keywords)
    except (TypeError, ValueError) as error:
        raise InputError(f"config: {error}") from error


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise CheckpointError(f"{path}: expected a file of tensors, {error}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: expected a state dict (names to tensors), got {type(state).__name__}")
    return state
