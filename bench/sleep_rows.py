"""Falling asleep, waking and being copied, with a program inside that holds 64 MiB; through the unmodified SDK."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from itertools import pairwise
from threading import Thread

import httpx
from e2b import CommandExitException, Sandbox, SandboxException

from bench.rows import Row, count
from bench.samples import Samples, milliseconds
from bench.target import Target
from bench.warren_target import LIFE_S, WarrenBox, WarrenTarget
from tests.e2e.waiting import until

HEAP_MIB = 64
FORKS = 10
TICKER = "import time\nwhile True: print(); time.sleep(0.005)"
SETTLED_S = 0.3
"""Seconds of ticks before and after."""
DEADLINE_S, ASLEEP_S = 2, 60
PROGRAM = f"import os, time; heap = bytearray(os.urandom({HEAP_MIB} << 20)); print(1, flush=True); time.sleep(9999)"
MEMORY = frozenset({"runsc"})


@contextmanager
def heavy(target: Target) -> Iterator[Sandbox]:
    """A sandbox whose program has filled its heap."""
    assert isinstance(target, WarrenTarget)
    box: WarrenBox = target.create()
    try:
        program = box.sandbox.commands.run(f'exec python3 -c "{PROGRAM}"', background=True, timeout=0)
        next(iter(program))
        program.disconnect()
        yield box.sandbox
    finally:
        box.delete()


def _each_time(times: int, once: Callable[[Sandbox], float]) -> Callable[[Target, float], Samples]:
    def take(target: Target, scale: float) -> Samples:
        with heavy(target) as sandbox:
            return Samples().measure(count(times, scale), lambda: once(sandbox))

    return take


def _pause(sandbox: Sandbox) -> float:
    taken = milliseconds(sandbox.pause)
    sandbox.connect(timeout=LIFE_S)
    return taken


def _at_the_deadline(target: Target, scale: float) -> Samples:
    assert isinstance(target, WarrenTarget)
    return Samples().measure(count(5, scale), lambda: _lateness(target))


def _lateness(target: WarrenTarget) -> float:
    """From a deadline that nobody moved until the sandbox sleeps and its room is free, both by the server's clock."""
    server, lifecycle = target.server, {"on_timeout": "pause"}
    headers = {"X-Warren-Runtime": target.runtime}
    sandbox = Sandbox.create(timeout=DEADLINE_S, lifecycle=lifecycle, api_headers=headers, **server.options)
    try:
        due, logs = sandbox.get_info().end_at, f"{server.api_url}/v2/sandboxes/{sandbox.sandbox_id}/logs"

        def paused() -> list[datetime]:
            entries = httpx.get(logs, headers={"X-API-Key": server.api_key}).json()["logs"]
            return [datetime.fromisoformat(entry["timestamp"]) for entry in entries if "paused" in entry["message"]]

        return (until(paused, ASLEEP_S, "it is paused")[0] - due) / timedelta(milliseconds=1)
    finally:
        sandbox.kill()


def _resume(sandbox: Sandbox) -> float:
    """Until the guest has answered a command, which is what a user waits for."""
    sandbox.pause()

    def wake() -> None:
        sandbox.connect(timeout=LIFE_S)
        sandbox.commands.run("true")

    return milliseconds(wake)


def _snapshot(sandbox: Sandbox) -> float:
    made: list[str] = []
    taken = milliseconds(lambda: made.append(sandbox.create_snapshot().snapshot_id))
    Sandbox.delete_snapshot(made[0], **sandbox.connection_config.get_api_params())
    return taken


def _held(sandbox: Sandbox) -> float:
    """The longest that a program inside is not heard of while a snapshot is taken."""
    ticking = sandbox.commands.run(f"exec python3 -uc '{TICKER}'", background=True, timeout=0)
    heard: list[float] = []

    def listen() -> None:
        with suppress(SandboxException, CommandExitException):  # it is disconnected below
            for _ in ticking:
                heard.append(time.perf_counter())

    listener = Thread(target=listen)
    listener.start()
    try:
        time.sleep(SETTLED_S)
        began = time.perf_counter()
        _snapshot(sandbox)
        ended = time.perf_counter()
        time.sleep(SETTLED_S)
    finally:
        ticking.kill()
        listener.join()
    return max((later - at) * 1000 for at, later in pairwise(heard) if at < ended and began < later)


def _fork(sandbox: Sandbox) -> float:
    copies: list[Sandbox | Exception] = []
    taken = milliseconds(lambda: copies.extend(sandbox.fork(count=FORKS, timeout=LIFE_S)))
    failed = [copy for copy in copies if isinstance(copy, Exception)]
    for copy in copies:
        if isinstance(copy, Sandbox):
            copy.kill()
    if failed:
        raise RuntimeError(f"{len(failed)} of {FORKS} copies failed: {failed[0]}")
    return taken


ROWS = (
    Row(f"pause, {HEAP_MIB} MiB heap", "ms", _each_time(8, _pause), {"runsc": 200}),
    Row("paused after its deadline", "ms", _at_the_deadline, {"runsc": 1000, "crun": 1000}),
    Row(f"resume to first answer, {HEAP_MIB} MiB", "ms", _each_time(8, _resume), {"runsc": 250}),
    Row(f"snapshot, {HEAP_MIB} MiB heap", "ms", _each_time(5, _snapshot), {}, only=MEMORY),
    Row(f"held by a snapshot, {HEAP_MIB} MiB heap", "ms", _each_time(5, _held), {"runsc": 300}, only=MEMORY),
    Row(f"fork of {FORKS}, {HEAP_MIB} MiB heap", "ms", _each_time(3, _fork), {"runsc": 1200}, only=MEMORY),
)
