"""The store below an atlas: a chunk is whole and on the disk before it has its name, so no cut leaves an empty one."""

import asyncio
from pathlib import Path

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from cfx.runtime.places import put, sync_each


class Disk(LocalStore):
    """A local store whose chunks are on the disk once `settle` returns; one that takes the place of another is before.

    Attributes:
        touched: Files and folders that may not be on the disk yet.
    """

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self.touched: set[Path] = set()

    async def _set(self, key: str, value: Buffer, exclusive: bool = False) -> None:
        """What zarr's `set` calls; nothing here is written exclusively."""
        self._check_writable()
        await asyncio.to_thread(self._put, self.root / key, value)

    def _put(self, path: Path, value: Buffer) -> None:
        folder = path.parent
        while not folder.is_dir():
            folder = folder.parent
            self.touched.add(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        old = path.exists()
        put(path, value.as_buffer_like(), near=self.root, force=old)
        self.touched |= {path.parent} if old else {path.parent, path}

    def settle(self) -> None:
        """Return once all that was written is on the disk, bytes and names.

        Raises:
            OSError: the disk refused.
        """
        sync_each(self.touched)
        self.touched.clear()
