"""pytorch-ood, where it can be imported: other people's detectors to compare ours with."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch

_KEPT = []  # a library of operators ends with its object


@cache
def pytorch_ood() -> ModuleType | None:
    """Its detectors; None where it is not installed, or fails when imported."""
    if find_spec("pytorch_ood") is None:
        return None
    try:
        return import_module("pytorch_ood.detector")
    except Exception:  # torchvision beside a torch without its operators: it asks for their names only
        return _with_names()


def _with_names() -> ModuleType | None:
    try:
        _KEPT.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            _KEPT[0].define(f"{name}(Tensor a, Tensor b, float t) -> Tensor")
        return import_module("pytorch_ood.detector")
    except Exception:
        return None


def theirs(name: str, *args: object, **settings: object):
    """A detector of pytorch-ood; skips the test where there is none."""
    found = pytorch_ood()
    if found is None:
        pytest.skip("pytorch-ood is not installed or cannot be imported")
    return getattr(found, name)(*args, **settings)
