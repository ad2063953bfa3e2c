"""pytorch-ood, where it can be imported: other people's detectors to compare ours with."""

from functools import cache
from types import ModuleType

import pytest
import torch

_KEPT = []  # a library of operators ends with its object


@cache
def pytorch_ood() -> ModuleType | None:
    """Its detectors; None where it is not installed, or fails when imported."""
    try:
        # torchvision beside a torch without its operators asks for their names only
        _KEPT.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            _KEPT[0].define(f"{name}(Tensor a, Tensor b, float t) -> Tensor")
    except RuntimeError:
        pass  # they are there
    try:
        import pytorch_ood.detector as found
    except Exception:
        return None
    return found


def theirs(name: str, *args: object, **settings: object):
    """A detector of pytorch-ood; skips the test where there is none."""
    found = pytorch_ood()
    if found is None:
        pytest.skip("pytorch-ood is not installed or cannot be imported")
    return getattr(found, name)(*args, **settings)
