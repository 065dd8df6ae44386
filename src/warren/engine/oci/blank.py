"""Empty writable layers: an ext4 image of the asked size, made once and copied for each sandbox.

A copy costs a millisecond, because only the few blocks that mkfs wrote are copied; the rest of the file is a hole.
"""

import os
import shutil
import threading
from io import FileIO
from pathlib import Path

from warren.engine.oci.command import run
from warren.engine.oci.loop import BLOCK_BYTES
from warren.engine.oci.sparse import copy_data

MKFS_DEADLINE_S = 60.0
UPPER = "upper"
WORK = "work"
BYTES_PER_INODE = 16_384
"""One inode for each 16 KiB, ext4's own choice: 131,072 files on 2 GiB."""
FEATURES = "^has_journal,^resize_inode"
"""No journal: the layer never outlives a crash of the machine, as no process of its sandbox does. Nor is it resized."""
KEPT = 16
"""Sizes whose empty layer is kept; users choose sizes, and each one takes up to a few MiB."""
FORM = 3
"""Of what mkfs is told; part of the file's name, so that a change of it makes new blanks."""


class Blanks:
    """Kept in `folder`, one file for each size that was asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def copy(self, size_mb: int, target: Path) -> None:
        """A fresh layer at `target`, which must not exist."""
        with self._open(size_mb) as source, open(target, "xb", buffering=0) as fresh:
            copy_data(source.fileno(), fresh.fileno())

    def _open(self, size_mb: int) -> FileIO:
        master = self._folder / f"{size_mb}m-{FORM}.ext4"
        with self._lock:
            if not master.exists():
                self._make(size_mb, master)
                self._forget_oldest()
            return open(master, "rb", buffering=0)

    def _forget_oldest(self) -> None:
        masters = sorted(self._folder.glob("*.ext4"), key=lambda path: path.stat().st_mtime_ns)
        for path in masters[:-KEPT]:
            path.unlink()

    def _make(self, size_mb: int, master: Path) -> None:
        draft = self._folder / f".{master.name}.{os.getpid()}"
        skeleton = self._folder / f".skeleton.{os.getpid()}"
        shutil.rmtree(skeleton, ignore_errors=True)
        for name in (UPPER, WORK):
            (skeleton / name).mkdir(parents=True, mode=0o755)
        try:
            with open(draft, "wb") as file:
                file.truncate(size_mb * 1024 * 1024)
            argv = [
                "mkfs.ext4",
                "-q",
                "-F",
                "-m0",
                f"-b{BLOCK_BYTES}",
                "-I256",
                f"-i{BYTES_PER_INODE}",
                f"-O{FEATURES}",
                f"-d{skeleton}",
            ]
            argv += ["-Elazy_itable_init=1,nodiscard,root_owner=0:0", str(draft)]
            run("make an empty writable layer", argv, MKFS_DEADLINE_S)
            draft.rename(master)
        finally:
            shutil.rmtree(skeleton, ignore_errors=True)
            draft.unlink(missing_ok=True)
