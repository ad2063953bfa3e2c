"""Weights of the archived monai-generative package, for MONAI's networks of today.

The classes moved into MONAI with renamed tensors and arguments; MONAI's `load_old_state_dict` translates the tensors.
One thing it does not know: monai-generative's self-attention owns an output projection (`proj_attn`) that its forward
never calls, so the projection in a checkpoint is still its random initial value. MONAI applies it. Here it is set to
the identity, which is what the network was trained with.
"""

import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cfx.core.errors import CheckpointError, InputError, in_one_line
from cfx.models.registry import build
from cfx.models.weights import fill, read_state, state_in, unprefixed

KINDS = {"unet": "monai-diffusion-unet", "autoencoder-kl": "monai-autoencoder-kl"}
"""Kinds of networks of monai-generative -> their registry names."""
RENAMED = {"num_channels": "channels"}
"""Constructor arguments of monai-generative -> their names in MONAI."""
DROPPED = ("use_checkpointing",)
"""Constructor arguments that MONAI no longer takes and that do not change the function."""


def load_monai_generative(
    kind: str, weights: str | Path | Mapping[str, Tensor], config: Mapping[str, Any], key: str | None = None
) -> nn.Module:
    """MONAI's network with the weights of a monai-generative one.

    Args:
        kind: `unet` (DiffusionModelUNet) or `autoencoder-kl` (AutoencoderKL).
        weights: A state dict, or a file that holds one: safetensors, or `torch.save` (read with `weights_only=True`,
            so nothing is executed).
        config: Constructor arguments as they were given to monai-generative (or as MONAI names them today).
        key: Where in the weights the state dict is, where they hold more: `model`.

    Returns:
        The network in evaluation mode. It is MONAI's own class: a U-Net is called as
        `network(x, timesteps=..., class_labels=...)`, an autoencoder has `encode` (mean, std) and `decode`.

    Raises:
        InputError: unknown kind, or arguments that MONAI's class does not take.
        CheckpointError: not a file of tensors, or tensors that do not fit the network.
    """
    if kind not in KINDS:
        raise InputError(f"kind: expected one of {sorted(KINDS)}, got {kind!r}")
    network = _network(KINDS[kind], config)
    if isinstance(weights, Mapping):
        return _translated(network, state_in(weights, key, "weights"), "weights", kind).eval()
    return _translated(network, read_state(Path(weights), key), str(weights), kind).eval()


def load_network_state(
    name: str, state: Mapping[str, Tensor], keywords: Mapping[str, Any], place: str = "weights"
) -> nn.Module:
    """The network of a registry name with these weights; MONAI's U-Net and autoencoder also take monai-generative's.

    Args:
        name: One of `cfx.models.BUILDERS`.
        state: Names to tensors.
        keywords: What builds it.
        place: What the weights are called in errors.

    Raises:
        InputError: no network of that name, or keywords that it does not take.
        CheckpointError: weights that do not fit it.
    """
    if name in KINDS.values():
        return _translated(_network(name, keywords), dict(state), place, name)
    network = build(name, **keywords)
    fill(getattr(network, "network", network) if name == "diffusers-autoencoder-kl" else network, state, place)
    return network


def keywords_today(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of monai-generative as MONAI names them."""
    return {RENAMED.get(k, k): v for k, v in keywords.items() if k not in DROPPED}


def _translated(network: nn.Module, state: dict[str, Tensor], place: str, kind: str) -> nn.Module:
    """Load weights whose names may be monai-generative's; MONAI would leave what is missing at random."""
    state = unprefixed(network, state)
    names, mine = list(state), set(network.state_dict())  # loading empties the dictionary
    if set(names) == mine:
        return fill(network, state, place)
    try:
        with redirect_stdout(io.StringIO()):  # MONAI prints what it renames
            network.load_old_state_dict(state)  # type: ignore[operator]
    except (RuntimeError, KeyError, AttributeError) as error:
        raise _unlike(place, kind, in_one_line(error)) from error
    if state or len(names) != len(mine):
        raise _unlike(place, kind, f"{len(names)} tensors for {len(mine)}, left over {sorted(state)[:3]}")
    if any("proj_attn" in name for name in names):
        _bypass_projections(network)
    return network


def _unlike(place: str, kind: str, why: str) -> CheckpointError:
    return CheckpointError(f"{place}: expected those of a monai-generative {kind} with this config, {why}")


def _network(name: str, config: Mapping[str, Any]) -> nn.Module:
    try:
        return build(name, **keywords_today(config))
    except InputError as error:
        raise InputError(f"config: {error}") from error


@torch.no_grad()
def _bypass_projections(network: nn.Module) -> None:
    """Make the output projection of every spatial self-attention the identity."""
    from monai.networks.blocks.spatialattention import SpatialAttentionBlock

    for module in network.modules():
        if isinstance(module, SpatialAttentionBlock):
            projection = cast(nn.Linear, module.get_submodule("attn.out_proj"))
            nn.init.eye_(projection.weight)
            nn.init.zeros_(projection.bias)
