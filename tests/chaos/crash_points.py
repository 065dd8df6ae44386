"""The server killed at each step of each operation, and started again."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from e2b import Sandbox

from tests.chaos import crashing_server
from tests.chaos.operations import Operation, checkpoints, listed, snapshots, spares
from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until

CRASHES_S = 3
"""Seconds after an operation for a crash that comes behind its answer."""
STRAYS_S = 30


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """`call` is `<contract>.<method>`; number 2 is its second call within the operation."""

    when: str
    call: str
    number: int = 1

    def __str__(self) -> str:
        return f"{self.when} {self.call} {self.number}"


class CrashingServer(LocalServer):
    @property
    def serving(self) -> list[str]:
        return [sys.executable, crashing_server.__file__, str(self.plan_file)]

    @property
    def plan_file(self) -> Path:
        return self.folder / "plan"

    @property
    def trace_file(self) -> Path:
        return self.plan_file.with_suffix(".trace")

    def plan(self, text: str) -> None:
        fresh = self.folder / ".plan"
        fresh.write_text(text)
        fresh.rename(self.plan_file)


def calls_of(server: CrashingServer, operation: Operation, runtime: str) -> list[CrashPoint]:
    """Every crash point of an operation: it is done once, and its calls are written down."""
    given = operation.prepare(server, runtime)
    server.trace_file.unlink(missing_ok=True)
    server.plan(crashing_server.RECORD)
    acknowledged = operation.act(server, given)
    server.plan("")
    if not server.is_up:
        server.start()
    operation.check(server, given, acknowledged)
    clear(server)
    calls = dict.fromkeys(server.trace_file.read_text().splitlines())
    return [point for call in calls for point in _around(call)]


def _around(call: str) -> Iterator[CrashPoint]:
    name, number = call.split()
    for when in ("before", "after"):
        yield CrashPoint(when, name, int(number))


def crash(server: CrashingServer, operation: Operation, point: CrashPoint, runtime: str) -> bool:
    """Whether the point was reached; either way the next server is up, and what must be true is."""
    given = operation.prepare(server, runtime)
    server.plan(str(point))
    acknowledged = None
    with suppress(Exception):  # what the client sees of a crash is no concern of ours
        acknowledged = operation.act(server, given)
    with suppress(AssertionError):
        until(lambda: not server.is_up, CRASHES_S, "the server crashes")
    reached = not server.is_up
    server.kill()
    server.plan("")
    server.start()
    operation.check(server, given, acknowledged)
    what = f"{operation.name}, {point}"
    until(lambda: not strays(server), STRAYS_S, f"no strays after {what}")
    clear(server)
    until(lambda: not checkpoints(server), STRAYS_S, f"no checkpoint without a sandbox after {what}")
    return reached


def strays(server: LocalServer) -> set[str]:
    """Sandboxes of the engine that no list shows, unless they are as many as the pool keeps ready."""
    sandboxes = {path.name for path in Path("/run/warren", server.bridge, "sandboxes").glob("*")} - listed(server)
    if len(sandboxes) == sum(spares(server).values()):
        sandboxes = set()
    return sandboxes


def clear(server: LocalServer) -> None:
    for sandbox_id in listed(server):
        Sandbox.kill(sandbox_id, **server.options)
    for snapshot_id in snapshots(server):
        Sandbox.delete_snapshot(snapshot_id, **server.options)
