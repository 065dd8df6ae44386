"""Which host uids the sandboxes of a slot have: no two servers of this machine hand out the same.

Uids are given out in blocks, one for every BLOCK_SLOTS slots of a server, when the first of them is asked for. A claim
is a symbolic link below the run root, named by the block's number and pointing to `<bridge>/<which of its blocks>`:
it is made in one step, and stays after a crash, because the sandboxes may have stayed too. It is void when the
bridge's run folder is gone, or after a reboot.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Generator, Mapping
from pathlib import Path

from warren.engine.oci.slot import Slot
from warren.model.errors import EngineFailed

UID_BASE = 1_000_000
"""First host uid of the first block; above those of ordinary and of dynamic system users."""
UID_END = 2**31
"""Above it, uids are negative numbers to programs that keep them in an int."""
UIDS_PER_SLOT = 65_536
"""A sandbox sees uids 0 to 65535, as any image expects."""
BLOCK_SLOTS = 64
"""Slots of one block: a small server takes one, and 31 of the default size can have all they may ever use."""
FOLDER = ".uids"
"""A name that no bridge can have, for those have folders beside it."""
BLOCKS = (UID_END - UID_BASE) // (UIDS_PER_SLOT * BLOCK_SLOTS)


class UidRanges:
    """Those of the server with this bridge. Safe to call from several threads."""

    def __init__(self, run_root: Path, bridge: str) -> None:
        self._run_root = run_root
        self._bridge = bridge
        self._folder = run_root / FOLDER
        self._blocks: dict[int, int] = {}
        self._lock = threading.Lock()

    def base(self, slot: Slot) -> int:
        """The host uid of root inside; the same one for as long as this server or a sandbox of it is there."""
        which, place = divmod(slot.index, BLOCK_SLOTS)
        with self._lock:
            if which not in self._blocks:
                self._blocks[which] = self._claim(f"{self._bridge}/{which}")
            return UID_BASE + (self._blocks[which] * BLOCK_SLOTS + place) * UIDS_PER_SLOT

    def release(self) -> None:
        """Give all of them back; no sandbox of this server may be alive. Idempotent."""
        with self._turn():
            for block, owner in self._claims().items():
                if _bridge_of(owner) == self._bridge:
                    (self._folder / str(block)).unlink()
        self._blocks.clear()

    def _claim(self, owner: str) -> int:
        with self._turn():
            claims = self._claims()
            for block, claimed in claims.items():
                if claimed == owner:
                    return block
            for block in range(BLOCKS):
                if block not in claims or self._is_void(claims[block]):
                    link = self._folder / str(block)
                    link.unlink(missing_ok=True)
                    link.symlink_to(owner)
                    return block
            others = ", ".join(sorted({_bridge_of(claimed) for claimed in claims.values()}))
            raise EngineFailed(f"cannot find free uids: the servers {others} have them all; stop or clear away some")

    def _claims(self) -> Mapping[int, str]:
        return {int(entry.name): os.readlink(entry.path) for entry in os.scandir(self._folder)}

    def _is_void(self, owner: str) -> bool:
        return not (self._run_root / _bridge_of(owner)).is_dir()

    @contextlib.contextmanager
    def _turn(self) -> Generator[None]:
        """One server at a time: held for microseconds, and let go by the kernel if its holder dies."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _bridge_of(owner: str) -> str:
    return owner.partition("/")[0]
