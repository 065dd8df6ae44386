"""The audit log's nouns: an event, its record in the chain, and what is wrong with a chain.

A record is one line of canonical JSON. Its `mac` is an HMAC-SHA256 over the rest of the line, which holds the
record's number and the `mac` of the record before it. So nobody without the key can write a line, and nobody at all
can change, take out, move or add one without breaking the chain behind it. That a chain was cut off at its end shows
only against its checkpoint, which names the number and the `mac` of its last record, and is signed likewise.
"""

import enum
import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from warren.model import limits


class Kind(enum.StrEnum):
    """Every kind of event, as `<noun>.<verb>`. A new decision that matters gets a new line here; names never change."""

    SANDBOX_CREATE = "sandbox.create"
    SANDBOX_CONNECT = "sandbox.connect"
    SANDBOX_KILL = "sandbox.kill"
    SANDBOX_TIMEOUT = "sandbox.timeout"
    SANDBOX_NETWORK = "sandbox.network"
    SANDBOX_PAUSE = "sandbox.pause"
    SANDBOX_RESUME = "sandbox.resume"
    SANDBOX_FORK = "sandbox.fork"
    SANDBOX_END = "sandbox.end"
    """A sandbox is gone; `rule` says why: killed, expired, died, failed_to_start."""
    SNAPSHOT_CREATE = "snapshot.create"
    SNAPSHOT_DELETE = "snapshot.delete"
    TEMPLATE_CREATE = "template.create"
    TEMPLATE_BUILD = "template.build"
    """A build was started or cancelled."""
    TEMPLATE_BUILT = "template.built"
    """A build has ended; `rule` is ready, or the error's code."""
    TEMPLATE_UPLOAD = "template.upload"
    TEMPLATE_TAG = "template.tag"
    TEMPLATE_PUBLISH = "template.publish"
    """Whether other projects may start it was changed."""
    TEMPLATE_IDLE = "template.idle"
    """How deep its idle sandboxes sleep was changed."""
    TEMPLATE_DELETE = "template.delete"
    TEMPLATE_PRUNE = "template.prune"
    """Images and layers that nothing stands on were deleted because root wished so."""
    VOLUME_CREATE = "volume.create"
    VOLUME_DELETE = "volume.delete"
    VOLUME_CONTENT = "volume.content"
    """A change of files in a volume, by its token."""
    SECRET_CREATE = "secret.create"  # noqa: S105
    SECRET_UPDATE = "secret.update"  # noqa: S105
    SECRET_DELETE = "secret.delete"  # noqa: S105
    KEY_CREATE = "key.create"
    KEY_RENAME = "key.rename"
    KEY_REVOKE = "key.revoke"
    PROJECT_LIMITS = "project.limits"
    AUTH_REFUSED = "auth.refused"
    """A request without a key, or with one that is not known."""
    TRAFFIC_REFUSED = "traffic.refused"
    """The gateway kept a request away from a sandbox: no token, or a wrong one."""
    EGRESS_DENIED = "egress.denied"
    """Packets that sandboxes sent and the firewall dropped."""
    API_OTHER = "api.other"
    """A change by a route that has no kind of its own."""
    SERVER_START = "server.start"
    SERVER_STOP = "server.stop"
    AUDIT_REPAIRED = "audit.repaired"
    """A crash had left half a line; `text` is what it held."""
    AUDIT_LOST = "audit.lost"
    """Events that nobody could write down; `count` of them."""


class Outcome(enum.StrEnum):
    ALLOWED = "allowed"
    REFUSED = "refused"
    FAILED = "failed"
    """Allowed, tried, and not done: an error of the server, the runtime or the machine."""
    OBSERVED = "observed"
    """Nobody asked for it: it happened."""


@dataclass(frozen=True, slots=True)
class Event:
    """One decision. Ids only: never a key, a token or a value of an environment.

    rule: what decided, for a refusal the error's code. subject: `<noun>:<id>`, what it was about. project and key:
    on whose behalf, by id. via: the door it came in by (api, gateway, cli, server). request: the request's id.
    details: a few words or numbers more, whose meaning depends on the kind.
    """

    kind: Kind
    outcome: Outcome
    rule: str = ""
    subject: str = ""
    project: str = ""
    key: str = ""
    via: str = "server"
    request: str = ""
    details: Mapping[str, str | int] = field(default_factory=dict[str, "str | int"])


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: how many records it has, and the `mac` of the last."""

    count: int
    mac: str


EMPTY = Head(0, "0" * 64)
"""The head of a chain without records."""


@dataclass(frozen=True, slots=True)
class Record:
    """An event in its place: `head` is the chain's end with this record, `line` what is written, newline included."""

    event: Event
    at: datetime
    head: Head
    line: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a chain must reach. `base` is the head before its oldest file: moved on when old files are dropped."""

    base: Head
    head: Head


@dataclass(frozen=True, slots=True)
class Link:
    """Two good records that stand one behind the other, with `bad` lines in between; `previous` is what the second
    says of the first."""

    before: Head
    bad: int
    here: Head
    previous: str


class FaultKind(enum.StrEnum):
    CHANGED = "changed"
    """A line that the key did not sign as it stands."""
    MISSING = "missing"
    """Records between two lines are not there."""
    MOVED = "moved"
    """A good record where it does not belong: moved here, or written twice."""
    TORN = "torn"
    """The last line has no end: a crash while it was written, or a cut."""
    CUT = "cut"
    """The chain ends before its checkpoint."""
    UNSIGNED = "unsigned"
    """The checkpoint is missing or was not signed with this key."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong, and where: `line` counts from 1 in `file`, 0 means the file as a whole."""

    kind: FaultKind
    file: str
    line: int
    message: str


def chained(event: Event, at: datetime, before: Head, key: bytes) -> Record:
    """The record that follows `before`."""
    count = before.count + 1
    body: dict[str, Any] = {
        "seq": count,
        "prev": before.mac,
        "at": at.isoformat(timespec="microseconds"),
        "kind": event.kind.value,
        "outcome": event.outcome.value,
        "rule": _short(event.rule),
        "subject": _short(event.subject),
        "project": _short(event.project),
        "key": _short(event.key),
        "via": _short(event.via),
        "request": _short(event.request),
        "details": _bounded(event.details),
    }
    mac = _mac(body, key)
    return Record(event, at, Head(count, mac), canonical(body | {"mac": mac}) + b"\n")


def read(line: bytes, key: bytes) -> dict[str, Any] | None:
    """The fields of a line (no newline) that the key signed, exactly as it stands; None for any other."""
    try:
        parsed: object = json.loads(line)
        if not isinstance(parsed, dict):
            return None
        body = cast("dict[str, Any]", parsed)
        if canonical(body) != line:
            return None
    except (ValueError, RecursionError):
        return None
    mac = body.pop("mac", None)
    if not isinstance(mac, str) or not hmac.compare_digest(mac.encode(), _mac(body, key).encode()):
        return None
    return body | {"mac": mac}


def head_of(body: Mapping[str, Any]) -> Head:
    """Of a line that `read` accepted."""
    return Head(int(body["seq"]), str(body["mac"]))


def signed(checkpoint: Checkpoint, key: bytes) -> bytes:
    body: dict[str, Any] = {
        "base": checkpoint.base.count,
        "base_mac": checkpoint.base.mac,
        "count": checkpoint.head.count,
        "mac": checkpoint.head.mac,
    }
    return canonical(body | {"signature": _mac(body | {"what": "checkpoint"}, key)}) + b"\n"


def read_checkpoint(text: bytes, key: bytes) -> Checkpoint | None:
    """None unless this key signed it."""
    try:
        body: Any = json.loads(text)
        found = Checkpoint(Head(body["base"], body["base_mac"]), Head(body["count"], body["mac"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if hmac.compare_digest(text, signed(found, key)) else None


def examine(
    files: Iterable[tuple[str, Iterable[bytes]]], checkpoint: Checkpoint, key: bytes
) -> Iterator[Fault | dict[str, Any]]:
    """Walk a chain, oldest file first, each as its lines with their newlines: good records and faults, in order.

    After a fault the walk goes on with the next good record, so that one fault does not hide another.
    """
    before, name, number, bad = checkpoint.base, "", 0, 0
    for name, lines in files:
        number = 0
        for number, line in enumerate(lines, 1):
            body = read(line[:-1], key) if line.endswith(b"\n") else None
            if body is None:
                bad += 1
                yield _bad_line(name, number, line)
                continue
            here = head_of(body)
            if before == checkpoint.base and here.count <= before.count:
                continue  # of a file that was being dropped for its age
            fault = _misplaced(Link(before, bad, here, str(body["prev"])), name, number)
            if fault is not None:
                yield fault
            if fault is None or fault.kind is not FaultKind.MOVED:
                before, bad = here, 0
            yield body
    if before.count < checkpoint.head.count:
        gone = checkpoint.head.count - before.count
        yield Fault(FaultKind.CUT, name, number, f"the last {gone} of {checkpoint.head.count} records are not there")


def _bad_line(name: str, number: int, line: bytes) -> Fault:
    if not line.endswith(b"\n"):
        return Fault(FaultKind.TORN, name, number, "the line has no end")
    return Fault(FaultKind.CHANGED, name, number, "the line is not what was written")


def _misplaced(link: Link, name: str, number: int) -> Fault | None:
    """Bad lines in between stand for as many records: they were reported already."""
    here, expected = link.here.count, link.before.count + 1 + link.bad
    if here <= link.before.count:
        return Fault(FaultKind.MOVED, name, number, f"record {here} stands behind record {link.before.count}")
    if here > expected:
        what = f"record {expected} is" if expected == here - 1 else f"records {expected} to {here - 1} are"
        return Fault(FaultKind.MISSING, name, number, f"{what} not there before record {here}")
    if here < expected:
        return Fault(FaultKind.MOVED, name, number, f"lines before record {here} were added")
    if not link.bad and link.previous != link.before.mac:
        return Fault(FaultKind.MISSING, name, number, f"record {here} does not follow this record {link.before.count}")
    return None


def canonical(body: Mapping[str, Any]) -> bytes:
    """The one way to write these fields: sorted, no spaces, ASCII."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _mac(body: Mapping[str, Any], key: bytes) -> str:
    return hmac.new(key, canonical(body), hashlib.sha256).hexdigest()


def _short(text: str) -> str:
    return text[: limits.AUDIT_TEXT_MAX]


def _bounded(details: Mapping[str, str | int]) -> dict[str, str | int]:
    kept = list(details.items())[: limits.AUDIT_DETAILS_MAX]
    return {_short(name): value if isinstance(value, int) else _short(value) for name, value in kept}
