"""The one tensor that a network means, whatever it wraps it in."""

from collections.abc import Mapping

from torch import Tensor

from cfx.core.errors import InputError

NAMES = ("logits", "out", "sample")
"""What the tensor is called where there are several: in transformers, torchvision and diffusers."""


def tensor_of(out: object, name: str = "network") -> Tensor:
    """The tensor in what a network returned.

    Args:
        out: A tensor; a mapping or an object with one of `NAMES`; a mapping that holds one tensor only; or a tuple or
            list, whose first entry is meant.
        name: What the network is called in errors.

    Raises:
        InputError: none of these; the message lists what was found.
    """
    if isinstance(out, Tensor):
        return out.as_subclass(Tensor)  # MONAI's MetaTensor would otherwise follow every later operation
    if isinstance(out, Mapping):
        return _of_mapping(out, name)
    named = [getattr(out, key) for key in NAMES if isinstance(getattr(out, key, None), Tensor)]
    if named:
        return tensor_of(named[0], name)
    if isinstance(out, tuple | list) and out:
        return tensor_of(out[0], name)
    raise InputError(f"{name}: expected a tensor, or one under {_names()}, got {type(out).__name__}")


def _of_mapping(out: Mapping[str, object], name: str) -> Tensor:
    tensors = [key for key, value in out.items() if isinstance(value, Tensor)]
    chosen = [key for key in NAMES if key in tensors] or (tensors if len(tensors) == 1 else [])
    if not chosen:
        raise InputError(f"{name}: expected a tensor under {_names()}, or one only, got the keys {sorted(out)}")
    return tensor_of(out[chosen[0]], name)


def _names() -> str:
    return ", ".join(NAMES[:-1]) + f" or {NAMES[-1]}"
