"""The folder of an audit log: its files in order, its key, its checkpoint. Modes 0700 and 0600 throughout."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from warren import durable
from warren.model import audit
from warren.model.audit import EMPTY, Checkpoint

_KEY_BYTES = 32
_NAME = "audit-{:012d}.jsonl"
"""Named by the first record, so that names sort as the records do."""


@dataclass(frozen=True, slots=True)
class AuditFolder:
    path: Path

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def key_file(self) -> Path:
        return self.path / "key"

    @property
    def checkpoint_file(self) -> Path:
        return self.path / "checkpoint.json"

    def files(self) -> list[Path]:
        return sorted(self.path.glob("audit-*.jsonl"))

    def file_from(self, first: int) -> Path:
        return self.path / _NAME.format(first)

    def prepare(self) -> bytes:
        """The key; made, with an empty chain's checkpoint, on first use."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.key_file.exists():
            key = secrets.token_bytes(_KEY_BYTES)
            # The key last: a crash in between starts anew, and a folder with a key has a checkpoint.
            self.write_checkpoint(Checkpoint(EMPTY, EMPTY), key)
            durable.write(self.key_file, key)
        return self.key_file.read_bytes()

    def checkpoint(self, key: bytes) -> Checkpoint | None:
        """None when it is missing or another key signed it."""
        try:
            return audit.read_checkpoint(self.checkpoint_file.read_bytes(), key)
        except FileNotFoundError:
            return None

    def write_checkpoint(self, checkpoint: Checkpoint, key: bytes) -> None:
        durable.write(self.checkpoint_file, audit.signed(checkpoint, key))


def locked(folder: AuditFolder) -> int | None:
    """A descriptor that keeps everybody else from writing as long as it is open; None while somebody has one."""
    lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def is_written(folder: AuditFolder) -> bool:
    """Whether a server writes to it now."""
    lock = locked(folder)
    if lock is not None:
        os.close(lock)
    return lock is None


def lines(file: Path) -> Iterator[bytes]:
    """With their newlines; the last one may have none."""
    with file.open("rb") as opened:
        yield from opened
