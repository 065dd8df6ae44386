"""The folder of checkpoints. Each is a folder of its own, with its name once it is whole and a dotted one before that.

    <id>/manifest.json   what it is, what it needs, what the rest has to be
    <id>/memory/         what the runtime wrote of processes and memory
    <id>/files/          what the runtime wrote of the writable layer

Nothing here is ever read as anything but bytes: it comes out of a sandbox, and only a runtime takes it apart again.
"""

import contextlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import structlog

from warren.durable import disk_used, erase, flush, rename
from warren.engine.oci.manifest import Manifest
from warren.engine.oci.plain import Plain
from warren.engine.oci.promises import Promises
from warren.engine.oci.sealed import Key
from warren.engine.oci.vault import Vault
from warren.model import limits
from warren.model.errors import AlreadyExists, Busy, CheckpointNotFound, CheckpointUnusable
from warren.model.snapshot import CHECKPOINT_ID, SnapshotKind

MANIFEST = "manifest.json"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Draft:
    """`target` is where a runtime writes; `folder` becomes the checkpoint."""

    folder: Path
    target: Path

    def in_memory(self) -> int:
        """Bytes of what lies in memory until it is sealed; its sandbox pays for them."""
        if os.stat(self.target).st_dev == os.stat(self.folder).st_dev:
            return 0
        found = os.statvfs(self.target)
        return (found.f_blocks - found.f_bfree) * found.f_frsize


@dataclass(frozen=True, slots=True)
class Unread:
    """A checkpoint whose manifest says nothing to this version, and why."""

    id: str
    bytes: int
    why: str


class Shelf:
    """Checkpoints below `folder`, sealed when there is a key. Blocks; safe to call from several threads."""

    def __init__(self, folder: Path, key: Key | None) -> None:
        self.folder = folder
        self._plain = Plain()
        self.disk = Promises("the state folder's disk", self._free, "delete snapshots or paused sandboxes")
        self._vault = None if key is None else Vault(key, self.disk)
        self._readers: Counter[str] = Counter()
        self._changed = threading.Condition()

    def open(self) -> None:
        """Make the folder; clear what a crash left half-written or half-deleted."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in self.folder.glob(".*"):
            log.warning("half-made checkpoint removed", checkpoint=leftover.name)
            erase(leftover)

    @contextlib.contextmanager
    def draft(self, checkpoint_id: str, kind: SnapshotKind, size: int) -> Generator[Draft]:
        """Room for a new checkpoint of up to `size` bytes; gone at the end, unless it was published."""
        folder = self.folder / f".{checkpoint_id}"
        if (self.folder / checkpoint_id).exists() or folder.exists():
            raise AlreadyExists(f"cannot write checkpoint {checkpoint_id}: that id is in use")
        folder.mkdir(mode=0o700)
        try:
            with self._writer.scratch(folder, kind, size) as target:
                yield Draft(folder, target)
        finally:
            if folder.exists():
                erase(folder)

    def _free(self) -> int:
        """Bytes for checkpoints: others are left some room."""
        return shutil.disk_usage(self.folder).free - limits.CHECKPOINT_SPARE_BYTES

    def written(self, checkpoint_id: str) -> int:
        """Bytes on disk of a draft."""
        return disk_used(self.folder / f".{checkpoint_id}")

    @property
    def _writer(self) -> Plain | Vault:
        return self._vault or self._plain

    def publish(self, draft: Draft, manifest: Manifest, *, durable: bool = True) -> Manifest:
        """Make a written draft a checkpoint, under its name in one step; a durable one is all on disk before that."""
        whole = self._writer.store(draft.target, draft.folder, manifest, durable=durable)
        (draft.folder / MANIFEST).touch(mode=0o600)
        (draft.folder / MANIFEST).write_text(whole.to_json())
        if durable:
            folders = [path for path in draft.folder.rglob("*") if path.is_dir()]
            flush([draft.folder / MANIFEST, *folders, draft.folder])
            rename(draft.folder, self.folder / manifest.id)
        else:
            draft.folder.rename(self.folder / manifest.id)
        return whole

    def all(self) -> tuple[list[Manifest], list[Unread]]:
        read: list[Manifest] = []
        unread: list[Unread] = []
        for path in sorted(self.folder.iterdir()):
            if not CHECKPOINT_ID.fullmatch(path.name):
                continue
            try:
                read.append(self.find(path.name))
            except (CheckpointNotFound, CheckpointUnusable) as error:
                if path.exists():  # else it was deleted just now
                    unread.append(Unread(path.name, disk_used(path), str(error)))
        return read, unread

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
        """The folder of what a start of this kind reads, found whole. Raises CheckpointUnusable."""
        reader = self._vault if manifest.key else self._plain
        if reader is None:
            raise CheckpointUnusable(
                f"cannot open checkpoint {manifest.id}: it is sealed; set WARREN_CHECKPOINT_KEY_FILE to its key"
            )
        with reader.opened(self.folder / manifest.id, manifest, kind) as part:
            yield part

    def forget(self, checkpoint_id: str) -> None:
        """Delete it once nobody starts from it. Idempotent. Raises Busy when a start does not end."""
        doomed = self.folder / f".{checkpoint_id}.gone"
        with self._changed:
            if not self._changed.wait_for(lambda: not self._readers[checkpoint_id], limits.CHECKPOINT_DEADLINE_S):
                raise Busy(f"cannot delete checkpoint {checkpoint_id}: a sandbox is being started from it")
            self._readers.pop(checkpoint_id, None)
            found = bool(CHECKPOINT_ID.fullmatch(checkpoint_id)) and (self.folder / checkpoint_id).exists()
            if found:
                rename(self.folder / checkpoint_id, doomed)
        if found:  # else there is none, or another call is at it
            erase(doomed)
        self._plain.forget(checkpoint_id)
