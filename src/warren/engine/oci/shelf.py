"""The folder of checkpoints. Each is a folder of its own, with a name once it is whole and a dotted one before that.

    <id>/manifest.json   what it is, what it needs, the digests of the rest
    <id>/memory/         what the runtime wrote of processes and memory
    <id>/files/          what the runtime wrote of the writable layer

Nothing here is ever read as anything but bytes: it comes out of a sandbox, and only a runtime takes it apart again.
"""

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import structlog

from warren.engine.oci.digest import digest_of
from warren.engine.oci.durable import erase, flush, rename
from warren.engine.oci.manifest import Manifest, Piece
from warren.model import limits
from warren.model.errors import AlreadyExists, Busy, CheckpointNotFound, CheckpointUnusable
from warren.model.snapshot import CHECKPOINT_ID, SnapshotKind

MANIFEST = "manifest.json"
PARTS: Mapping[SnapshotKind, str] = {SnapshotKind.MEMORY: "memory", SnapshotKind.FILESYSTEM: "files"}
"""Folders of a checkpoint, by what a start from it reads."""

log = structlog.get_logger(__name__)


class Shelf:
    """Checkpoints below `folder`. Blocks; safe to call from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._readers: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._verified: dict[tuple[int, int, int, int], str] = {}

    def open(self) -> None:
        """Make the folder; clear what a crash left half-written or half-deleted."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in self.folder.glob(".*"):
            log.warning("half-made checkpoint removed", checkpoint=leftover.name)
            erase(leftover)

    @contextlib.contextmanager
    def draft(self, checkpoint_id: str) -> Generator[Path]:
        """An empty folder to write a new checkpoint to; gone at the end, unless it was published."""
        draft = self.folder / f".{checkpoint_id}"
        if (self.folder / checkpoint_id).exists() or draft.exists():
            raise AlreadyExists(f"cannot write checkpoint {checkpoint_id}: that id is in use")
        draft.mkdir(mode=0o700)
        try:
            yield draft
        finally:
            if draft.exists():
                erase(draft)

    def publish(self, draft: Path, manifest: Manifest) -> Manifest:
        """Make a written draft a checkpoint: all of it on disk, digested, and under its name in one step."""
        files = sorted(path for path in draft.rglob("*") if path.is_file())
        for path in files:
            path.chmod(0o600)
        with ThreadPoolExecutor(1, "flush") as flusher:
            flushed = flusher.submit(flush, files)
            whole = replace(manifest, pieces={str(path.relative_to(draft)): self._piece(path) for path in files})
            flushed.result()
        (draft / MANIFEST).touch(mode=0o600)
        (draft / MANIFEST).write_text(whole.to_json())
        flush([draft / MANIFEST, *(path for path in draft.rglob("*") if path.is_dir()), draft])
        rename(draft, self.folder / manifest.id)
        return whole

    def _piece(self, path: Path) -> Piece:
        with open(path, "rb", buffering=0) as file:
            digest = digest_of(file.fileno())
            found = os.fstat(file.fileno())
        self._verified[_identity(found)] = digest
        return Piece(found.st_size, found.st_blocks * 512, digest)

    def all(self) -> list[Manifest]:
        """Those that can be read; a damaged one is only logged, so that it hides none of the others."""
        found: list[Manifest] = []
        for checkpoint_id in self._names():
            try:
                found.append(self.find(checkpoint_id))
            except (CheckpointNotFound, CheckpointUnusable) as error:
                log.warning("checkpoint not listed", checkpoint=checkpoint_id, error=error.message)
        return found

    def _names(self) -> Iterable[str]:
        return sorted(path.name for path in self.folder.iterdir() if CHECKPOINT_ID.fullmatch(path.name))

    def find(self, checkpoint_id: str) -> Manifest:
        """Raises CheckpointNotFound, and CheckpointUnusable when what is there is no manifest."""
        if not CHECKPOINT_ID.fullmatch(checkpoint_id):
            raise CheckpointNotFound
        try:
            return Manifest.from_json((self.folder / checkpoint_id / MANIFEST).read_text())
        except FileNotFoundError:
            raise CheckpointNotFound from None
        except (OSError, ValueError) as error:
            raise CheckpointUnusable(f"cannot use checkpoint {checkpoint_id}: {error}") from None

    @contextlib.contextmanager
    def reading(self, checkpoint_id: str) -> Generator[Manifest]:
        """Nobody deletes it meanwhile. Raises like `find`."""
        with self._changed:
            manifest = self.find(checkpoint_id)
            self._readers[checkpoint_id] += 1
        try:
            yield manifest
        finally:
            with self._changed:
                self._readers[checkpoint_id] -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def part(self, manifest: Manifest, kind: SnapshotKind) -> Generator[Path]:
        """The folder of what a start of this kind reads, every byte checked. Raises CheckpointUnusable."""
        folder = self.folder / manifest.id
        for name, piece in manifest.pieces.items():
            if name.startswith(f"{PARTS[kind]}/"):
                self._verify(folder / name, piece)
        yield folder / PARTS[kind]

    def _verify(self, path: Path, piece: Piece) -> None:
        """Once for each file as it is: it is written once, and only root can change it."""
        try:
            with open(path, "rb", buffering=0) as file:
                found = os.fstat(file.fileno())
                if self._verified.get(_identity(found)) == piece.digest:
                    return
                digest = digest_of(file.fileno())
        except OSError as error:
            raise CheckpointUnusable(f"cannot use this checkpoint: its {path.name} cannot be read: {error}") from None
        if (found.st_size, digest) != (piece.length, piece.digest):
            raise CheckpointUnusable(f"cannot use this checkpoint: its {path.name} is damaged")
        self._verified[_identity(found)] = digest

    def forget(self, checkpoint_id: str) -> None:
        """Delete it once nobody starts from it. Idempotent. Raises Busy when a start does not end."""
        doomed = self.folder / f".{checkpoint_id}.gone"
        with self._changed:
            if not self._changed.wait_for(lambda: not self._readers[checkpoint_id], limits.CHECKPOINT_DEADLINE_S):
                raise Busy(f"cannot delete checkpoint {checkpoint_id}: a sandbox is being started from it")
            if CHECKPOINT_ID.fullmatch(checkpoint_id) and (self.folder / checkpoint_id).exists():
                rename(self.folder / checkpoint_id, doomed)
        if doomed.exists():
            erase(doomed)


def _identity(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
