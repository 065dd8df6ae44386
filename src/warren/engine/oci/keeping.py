"""Checkpoints of this engine's sandboxes: written, opened for a start, deleted."""

import contextlib
import errno
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path

import structlog

from warren.contracts.engine import Checkpoint, SandboxSpec
from warren.durable import DISK_FULL
from warren.engine.oci.box import Box
from warren.engine.oci.bundle import MIB
from warren.engine.oci.cgroup import Cgroups
from warren.engine.oci.fence import Keep
from warren.engine.oci.manifest import Manifest, has_files, obstacle
from warren.engine.oci.record import Record
from warren.engine.oci.runtime import Runtime, Saved
from warren.engine.oci.shelf import Draft, Shelf
from warren.model import limits
from warren.model.errors import CheckpointUnusable, EngineFailed, NoSpace, NotSupported, WarrenError
from warren.model.sandbox import Resources
from warren.model.snapshot import SnapshotKind

SPARE_MEMORY_BYTES = 256 * MIB
"""What a checkpoint may take of memory beyond the sandbox's own limit: the sentry's lists, pages on their way out."""

log = structlog.get_logger(__name__)


class Keeping:
    """Blocks: call it through `on_thread`."""

    def __init__(self, shelf: Shelf, cgroups: Cgroups, runtimes: Mapping[str, Runtime]) -> None:
        self._shelf = shelf
        self._cgroups = cgroups
        self._runtimes = runtimes

    def write(self, box: Box, checkpoint_id: str, kind: SnapshotKind, *, hold: bool, durable: bool) -> Checkpoint:
        """The sandbox goes on, or stands still when `hold` is set. After an error it goes on and nothing is left."""
        record, folder = box.record, box.folder
        runtime = self._runtimes[record.runtime]
        if kind is SnapshotKind.MEMORY and not runtime.keeps_memory:
            raise NotSupported(f"cannot keep the memory of a sandbox under {runtime.name}; ask for its files alone")
        if not record.image:
            raise NotSupported(f"cannot keep sandbox {record.id}: a server of an earlier version started it")
        size = self._expected_bytes(runtime, record, folder, kind)
        try:
            with (
                # Before anything stands still: what will be written has to fit.
                self._shelf.disk.hold(f"keep sandbox {record.id}", size, lambda: self._shelf.written(checkpoint_id)),
                box.headroom(size + SPARE_MEMORY_BYTES) as keep,
                self._shelf.draft(checkpoint_id, kind, size) as draft,
            ):
                manifest = _manifest(record, checkpoint_id, kind)
                return self._write(box, draft, manifest, keep, hold=hold, durable=durable)
        except OSError as error:
            raise self._failure(record.id, error) from error

    def _write(
        self, box: Box, draft: Draft, manifest: Manifest, keep: Keep, *, hold: bool, durable: bool
    ) -> Checkpoint:
        runtime, record, folder = self._runtimes[box.record.runtime], box.record, box.folder
        try:
            runtime.halt(record, folder)
            try:
                whole = runtime.save(record, folder, draft.target, manifest)
            finally:  # before it goes on: it would take what is lent for its own
                keep(draft.in_memory())
            if not hold:
                runtime.wake(record, folder)
            return self._shelf.publish(draft, whole, durable=durable).checkpoint
        except BaseException:
            try:
                runtime.wake(record, folder)
            except EngineFailed as error:  # the first error is the one to report; one that has died needs no waking
                log.error("sandbox not woken after a failed checkpoint", sandbox=record.id, error=error.message)
            raise

    def _expected_bytes(self, runtime: Runtime, record: Record, folder: Path, kind: SnapshotKind) -> int:
        """Of a checkpoint, at the most: memory has the files' content in it, and the files come on top."""
        files = runtime.disk_used(record, folder)
        if kind is SnapshotKind.FILESYSTEM:
            return files
        usage = self._cgroups.usage(record.id)
        return usage.memory - usage.cache + 2 * files

    def _failure(self, sandbox_id: str, error: OSError) -> WarrenError:
        """A loop device says EIO where the disk below it is full."""
        is_full = (
            error.errno == errno.EIO and shutil.disk_usage(self._shelf.folder).free < limits.CHECKPOINT_SPARE_BYTES
        )
        if is_full or error.errno in DISK_FULL:
            return NoSpace()
        return EngineFailed(f"cannot keep sandbox {sandbox_id}: {error.strerror}")

    @contextlib.contextmanager
    def opened(self, spec: SandboxSpec) -> Generator[Saved | None]:
        """What `spec` is to start from. Raises CheckpointNotFound, CheckpointUnusable, NoSpace."""
        if spec.restore is None:
            yield None
            return
        kind, runtime = spec.restore.kind, self._runtimes[spec.runtime]
        with self._shelf.reading(spec.restore.checkpoint_id) as manifest:
            try:
                why_not = obstacle(manifest, spec, kind, runtime.needs)
                if why_not is not None:
                    raise CheckpointUnusable(f"cannot start from checkpoint {manifest.id}: {why_not}")
                with self._shelf.part(manifest, kind) as part:
                    yield Saved(manifest, kind, part)
            except CheckpointUnusable as error:
                if kind is SnapshotKind.MEMORY and has_files(manifest):
                    raise CheckpointUnusable(f"{error.message}; start from its files alone (memory: false)") from error
                raise

    def checkpoints(self) -> list[Checkpoint]:
        read, unread = self._shelf.all()
        return [
            *(manifest.checkpoint for manifest in read),
            *(Checkpoint(each.id, "", "", SnapshotKind.FILESYSTEM, each.bytes, unreadable=each.why) for each in unread),
        ]

    def guests(self) -> set[str] | None:
        """Copies of guestd that saved processes run; None where a checkpoint does not tell."""
        read, unread = self._shelf.all()
        return None if unread else {manifest.guest for manifest in read}

    def forget(self, checkpoint_id: str) -> None:
        self._shelf.forget(checkpoint_id)


def _manifest(record: Record, checkpoint_id: str, kind: SnapshotKind) -> Manifest:
    return Manifest(
        id=checkpoint_id,
        sandbox_id=record.id,
        runtime=record.runtime,
        kind=kind,
        image=record.image,
        resources=Resources(record.cpu_count, record.memory_mb, record.disk_mb, record.pids),
    )
