"""Results to and from a zarr v3 store that refuses what is damaged and resumes what was interrupted."""

from cfx.atlas.kinds import KINDS
from cfx.atlas.store import Atlas, check_path, read_atlas, write_atlas
from cfx.atlas.verify import Verified, verify_atlas

__all__ = ["KINDS", "Atlas", "Verified", "check_path", "read_atlas", "verify_atlas", "write_atlas"]
