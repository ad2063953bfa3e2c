"""Networks by registry name, and their checkpoints: a folder that says what it is and proves its bytes.

Nothing heavy is imported before a network is built or loaded.
"""

from cfx.models.adapt import Output, Pixels, adapt
from cfx.models.checkpoint import load, load_network, read_manifest, save
from cfx.models.kinds import Manifest
from cfx.models.opening import NetworkSpec, open_network
from cfx.models.registry import BUILDERS, build, kind

__all__ = [
    "BUILDERS", "Manifest", "NetworkSpec", "Output", "Pixels", "adapt", "build", "kind", "load", "load_network",
    "open_network", "read_manifest", "save",
]  # fmt: skip
