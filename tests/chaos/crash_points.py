"""The server killed at each step of each operation, and started again."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from e2b import Sandbox

from tests.chaos import crashing_server
from tests.chaos.operations import Operation, checkpoints, listed, snapshots, spares
from tests.chaos.rounds import RUNTIMES
from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until
from warren.engine.oci.process import ProcessId, kill, wait_over

CRASHES_S = 3
"""Seconds after an operation for a crash that comes behind its answer."""
STRAYS_S = 30
DURING = "during"
MOMENTS_MS = (0, 15, 60)
"""Of a runtime's command: nothing is done, something is, it is at its end or has ended."""
LATE_S = 8.0
"""Seconds after which a command that outlived its server goes on, if the next server waits for that; else it is up."""


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """`call` is `<contract>.<method>`, or `<runtime>.<verb>`; number 2 is its second call within the operation.

    `ms`: so much of a runtime's command is done. Only `during` one.
    """

    when: str
    call: str
    number: int = 1
    ms: int = 0

    def __str__(self) -> str:
        return f"{self.when} {self.call} {self.number}" + (f" {self.ms}" if self.when == DURING else "")


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

    @property
    def orphan_file(self) -> Path:
        return self.plan_file.with_suffix(".orphan")

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
    if name.split(".")[0] in RUNTIMES:
        for ms in MOMENTS_MS:
            yield CrashPoint(DURING, name, int(number), ms)
        return
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
    with _late_orphan(server):
        server.start()
    operation.check(server, given, acknowledged)
    what = f"{operation.name}, {point}"
    until(lambda: not strays(server), STRAYS_S, f"no strays after {what}")
    clear(server)
    until(lambda: not checkpoints(server), STRAYS_S, f"no checkpoint without a sandbox after {what}")
    return reached


@contextmanager
def _late_orphan(server: CrashingServer) -> Iterator[None]:
    """What the dead server had begun goes on when the next one is up, and has ended when the block is left."""
    process = ProcessId.of(int(server.orphan_file.read_text())) if server.orphan_file.exists() else None
    server.orphan_file.unlink(missing_ok=True)
    pidfd = process.open() if process else None
    if pidfd is None:
        yield
        return

    def go_on() -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)

    late = threading.Timer(LATE_S, go_on)
    late.start()
    try:
        yield
        go_on()
        assert wait_over(pidfd, STRAYS_S), "what the dead server had begun ends"
    finally:
        late.cancel()
        late.join()
        kill(pidfd)
        os.close(pidfd)


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
