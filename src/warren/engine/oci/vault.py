"""How a checkpoint lies on the disk encrypted.

Memory is never there in the open: the runtime writes it to and reads it from a folder that is memory itself, which
takes as much of the machine's memory as the checkpoint is large, for that long. Files are in the open on the disk
while their sandbox runs, and so they are in a passing folder while a checkpoint of them is sealed or opened.
"""

import contextlib
import os
import secrets
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from warren.durable import disk_used, erase, files_below, flush
from warren.engine.oci import libc
from warren.engine.oci.machine import MIB, memory_of
from warren.engine.oci.manifest import PARTS, Manifest, Piece
from warren.engine.oci.plain import parts_of
from warren.engine.oci.promises import Promises
from warren.engine.oci.sealed import Damaged, FileCipher, Key, new_key
from warren.model import limits
from warren.model.errors import CheckpointUnusable
from warren.model.snapshot import SnapshotKind


class Vault:
    """Seals with the server's key. `disk` is the room where checkpoints and passing folders are."""

    def __init__(self, key: Key, disk: Promises) -> None:
        self._key = key
        self._disk = disk
        self._memory = Promises("the machine's memory", _free_memory, "try again later")

    @contextlib.contextmanager
    def scratch(self, draft: Path, kind: SnapshotKind, size: int) -> Generator[Path]:
        """Where the runtime writes up to `size` bytes. Raises NoSpace."""
        if kind is SnapshotKind.MEMORY:
            with self._memory_folder(size) as folder:
                yield folder
        else:
            # Beside the room for what is sealed: it lies there twice until it is.
            with self._passing_folder(draft.parent, "seal the checkpoint", size) as folder:
                yield folder

    def store(self, scratch: Path, draft: Path, manifest: Manifest, *, durable: bool) -> Manifest:
        key, pieces = new_key(), dict[str, Piece]()
        for number, path in enumerate(files_below(scratch)):
            name = str(path.relative_to(scratch))
            pieces[name] = _seal(path, draft / name, key, number, name)
        if durable:
            flush(files_below(draft))
        return replace(manifest, pieces=pieces, key=self._key.wrap(key, manifest.id))

    @contextlib.contextmanager
    def opened(self, folder: Path, manifest: Manifest, kind: SnapshotKind) -> Generator[Path]:
        """A passing copy of what a start of this kind reads, in the open. Raises CheckpointUnusable, NoSpace."""
        wanted, numbers = (
            parts_of(manifest, kind),
            {name: number for number, name in enumerate(sorted(manifest.pieces))},
        )
        if kind is SnapshotKind.MEMORY:
            place = self._memory_folder(sum(piece.length for piece in wanted.values()))
        else:  # where holes stay holes
            size = sum(piece.on_disk for piece in wanted.values())
            place = self._passing_folder(folder.parent, "open the checkpoint", size)
        with place as scratch:
            try:
                key = self._key.unwrap(manifest.key, manifest.id)
                for name, piece in wanted.items():
                    _unseal(folder / name, scratch / name, FileCipher(key, numbers[name], name, piece.length))
            except (Damaged, FileNotFoundError) as error:
                raise CheckpointUnusable(f"cannot use checkpoint {manifest.id}: it is damaged, {error}") from error
            yield scratch / PARTS[kind]

    @contextlib.contextmanager
    def _passing_folder(self, parent: Path, task: str, size: int) -> Generator[Path]:
        folder = parent / f".open-{secrets.token_hex(8)}"
        with self._disk.hold(task, size, lambda: disk_used(folder)):
            folder.mkdir(mode=0o700)
            try:
                yield folder
            finally:
                erase(folder)

    @contextlib.contextmanager
    def _memory_folder(self, size: int) -> Generator[Path]:
        """A tmpfs that is mounted nowhere: it ends with this descriptor, whatever becomes of the server."""
        attributes = libc.MOUNT_ATTR_NODEV | libc.MOUNT_ATTR_NOATIME
        fd = libc.new_mount("tmpfs", "tmpfs", (f"size={size + limits.CHECKPOINT_SPARE_BYTES}", "mode=700"), attributes)
        try:
            with self._memory.hold("seal or open the checkpoint", size, lambda: _used(fd)):
                folder = Path(f"/proc/{os.getpid()}/fd/{fd}")
                yield folder
                for path in files_below(folder):
                    os.truncate(path, 0)  # a sentry may still have it open
        finally:
            os.close(fd)


def _seal(source: Path, target: Path, key: bytes, number: int, name: str) -> Piece:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(source, "rb", buffering=0) as open_file, open(target, "xb", buffering=0) as sealed:
        length = os.fstat(open_file.fileno()).st_size
        os.fchmod(sealed.fileno(), 0o600)
        FileCipher(key, number, name, length).seal(open_file.fileno(), sealed.fileno())
        return Piece(length, os.fstat(sealed.fileno()).st_size, None)


def _unseal(source: Path, target: Path, cipher: FileCipher) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(source, "rb", buffering=0) as sealed, open(target, "xb", buffering=0) as open_file:
        cipher.unseal(sealed.fileno(), open_file.fileno())


def _free_memory() -> int:
    _, available_mb = memory_of()
    return available_mb * MIB - limits.CHECKPOINT_SPARE_BYTES


def _used(fd: int) -> int:
    found = os.fstatvfs(fd)
    return (found.f_blocks - found.f_bfree) * found.f_frsize
