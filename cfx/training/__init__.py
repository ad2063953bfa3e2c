"""Training through accelerate: one loop for every objective of `cfx.training.registry`.

The names below load on first use: who only gathers rows over processes needs neither data nor networks.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfx.training.config import TrainConfig as TrainConfig
    from cfx.training.config import check_config as check_config
    from cfx.training.config import read_config as read_config
    from cfx.training.loop import Result as Result
    from cfx.training.loop import train as train

_HOME = {
    "Result": "cfx.training.loop",
    "TrainConfig": "cfx.training.config",
    "check_config": "cfx.training.config",
    "read_config": "cfx.training.config",
    "train": "cfx.training.loop",
}

__all__ = ["Result", "TrainConfig", "check_config", "read_config", "train"]


def __getattr__(name: str) -> object:
    """Fetch a public name from the file it lives in.

    Raises:
        AttributeError: the name is not one of `__all__`.
    """
    if name not in _HOME:
        raise AttributeError(f"module 'cfx.training' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)
