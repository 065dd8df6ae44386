"""Reading an audit log, while a server writes to it or later, perhaps on another machine."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from warren.audit.folder import AuditFolder, is_written, lines
from warren.model import audit
from warren.model.audit import EMPTY, Checkpoint, Fault, FaultKind, Head
from warren.model.errors import NotFound


@dataclass(slots=True)
class Verdict:
    """head: the last good record. repaired: torn ends that a server found and wrote down."""

    records: int = 0
    files: int = 0
    repaired: int = 0
    base: Head = EMPTY
    head: Head = EMPTY
    faults: list[Fault] = field(default_factory=list[Fault])


def verify(folder: AuditFolder, expected: Head | None = None) -> Verdict:
    """Everything that is wrong with a log. `expected` is a head that somebody noted elsewhere, earlier.

    Raises NotFound when there is no log. The checkpoint is read first: a server that writes meanwhile is ahead of it.
    """
    key = _key(folder)
    verdict, checkpoint = Verdict(), folder.checkpoint(key)
    if checkpoint is None:
        name = folder.checkpoint_file.name
        verdict.faults.append(Fault(FaultKind.UNSIGNED, name, 0, "it is missing, or was not signed with this key"))
        checkpoint = Checkpoint(EMPTY, EMPTY)
    files = folder.files()
    verdict.files, verdict.base = len(files), checkpoint.base
    met = expected is None or expected == checkpoint.base
    for found in audit.examine(((file.name, lines(file)) for file in files), checkpoint, key):
        if isinstance(found, Fault):
            if found.kind is not FaultKind.TORN or not is_written(folder):  # it is being written at this moment
                verdict.faults.append(found)
            continue
        verdict.records += 1
        verdict.repaired += found["kind"] == audit.Kind.AUDIT_REPAIRED
        verdict.head = audit.head_of(found)
        met = met or verdict.head == expected
    if not met and expected is not None:
        verdict.faults.append(Fault(FaultKind.CUT, "", 0, f"record {expected.count} is not the one that was noted"))
    return verdict


def records(folder: AuditFolder, wanted: Callable[[dict[str, Any]], bool]) -> Iterator[dict[str, Any]]:
    """The good records that are wanted, oldest first. Says nothing about the rest: that is what `verify` is for."""
    key = _key(folder)
    for file in folder.files():
        for line in lines(file):
            body = audit.read(line.rstrip(b"\n"), key)
            if body is not None and wanted(body):
                yield body


def _key(folder: AuditFolder) -> bytes:
    try:
        return folder.key_file.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"cannot find an audit log in {folder.path}; a server makes one when it first starts") from None
