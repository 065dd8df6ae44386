"""The writing end of a chain: opens it where it stopped, appends, begins new files. Blocking; no thread of its own."""

import hashlib
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Self

import structlog

from warren import durable
from warren.audit.folder import AuditFolder, lines, locked
from warren.model import audit, limits
from warren.model.audit import Checkpoint, Event, Head, Kind, Outcome
from warren.model.errors import AuditUnavailable

log = structlog.get_logger(__name__)


class Chain:
    """One writer a folder: a lock on it is held until `close`."""

    def __init__(self, folder: AuditFolder, now: datetime, *, file_bytes: int = limits.AUDIT_FILE_BYTES) -> None:
        """Raises AuditUnavailable for a folder in use, and for a chain that somebody tampered with."""
        self._folder, self._file_bytes = folder, file_bytes
        self._key = folder.prepare()
        lock = locked(folder)
        if lock is None:
            raise AuditUnavailable(f"cannot write to the audit log in {folder.path}: another Warren does")
        self._lock = lock
        try:
            checkpoint = folder.checkpoint(self._key)
            if checkpoint is None:
                raise _damaged(folder, "its checkpoint is missing or was not signed with its key")
            self._base = checkpoint.base
            self.head, self._synced = self._mended(checkpoint, now), checkpoint.head
            self._file, self._size = self._opened()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, events: Sequence[tuple[datetime, Event]]) -> None:
        """Write records for these events, in order: all of them, or none and OSError."""
        if self._size >= self._file_bytes:
            self._next_file()
        head, written = self.head, bytearray()
        for at, event in events:
            record = audit.chained(event, at, head, self._key)
            head = record.head
            written += record.line
        os.ftruncate(self._file, self._size)  # what a failed attempt left
        _write(self._file, bytes(written), self._size)
        self._size += len(written)
        self.head = head

    def sync(self) -> None:
        """What was written is on the disk, and the checkpoint says so."""
        if self.head != self._synced:
            os.fsync(self._file)
            self._folder.write_checkpoint(Checkpoint(self._base, self.head), self._key)
            self._synced = self.head

    def close(self) -> None:
        os.close(self._file)
        os.close(self._lock)

    def _opened(self) -> tuple[int, int]:
        files = self._folder.files()
        path = files[-1] if files else self._folder.file_from(self.head.count + 1)
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        durable.flush([self._folder.path])
        return file, os.fstat(file).st_size

    def _next_file(self) -> None:
        """The old file is complete on the disk before the next one begins; the oldest go."""
        self.sync()
        path = self._folder.file_from(self.head.count + 1)
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.close(self._file)
        self._file, self._size = file, os.fstat(file).st_size
        durable.flush([self._folder.path])
        files = self._folder.files()
        for index in range(len(files) - limits.AUDIT_FILES_KEPT):
            self._drop(files[index], files[index + 1])

    def _drop(self, old: Path, follower: Path) -> None:
        """First the checkpoint, then the file: a crash in between leaves a file too many, which `base` skips."""
        first = next((body for line in lines(follower) if (body := audit.read(line.rstrip(b"\n"), self._key))), None)
        if first is not None:
            self._base = Head(audit.head_of(first).count - 1, str(first["prev"]))
            self._folder.write_checkpoint(Checkpoint(self._base, self.head), self._key)
        old.unlink()

    def _mended(self, checkpoint: Checkpoint, now: datetime) -> Head:
        """The chain's head. What a crash left half-written behind it becomes part of a record that tells so."""
        files = self._folder.files()
        if not files and checkpoint.head.count > checkpoint.base.count:
            raise _damaged(self._folder, "its files are gone")
        for file in reversed(files):
            content = file.read_bytes()
            good, head = self._last_good(content)
            if head is None and not content[good:]:
                continue  # just begun when the server ended; an empty file says nothing
            head = head or checkpoint.head
            if head.count < checkpoint.head.count:
                raise _damaged(self._folder, f"{file.name} ends at record {head.count} of {checkpoint.head.count}")
            if torn := content[good:]:
                record = audit.chained(_repair(torn), now, head, self._key)
                durable.write(file, content[:good] + record.line)
                log.warning("the audit log had a torn end; repaired", file=file.name, bytes=len(torn))
                return record.head
            return head
        return checkpoint.head

    def _last_good(self, content: bytes) -> tuple[int, Head | None]:
        """Where the last good line ends, and the head that it makes."""
        end = content.rfind(b"\n") + 1
        while end > 0:
            start = content.rfind(b"\n", 0, end - 1) + 1
            body = audit.read(content[start : end - 1], self._key)
            if body is not None:
                return end, audit.head_of(body)
            end = start
        return 0, None


def _damaged(folder: AuditFolder, what: str) -> AuditUnavailable:
    return AuditUnavailable(
        f"cannot go on with the audit log in {folder.path}: {what}. Look at it with `warren audit verify`; "
        "then move the folder away, as evidence, and start again"
    )


def _repair(torn: bytes) -> Event:
    text = torn[: limits.AUDIT_TORN_MAX].decode("ascii", "backslashreplace")
    details: dict[str, str | int] = {"text": text, "bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
    return Event(Kind.AUDIT_REPAIRED, Outcome.OBSERVED, rule="torn", details=details)


def _write(file: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done
