"""The idle ladder: what a sandbox that nobody uses takes at each step, and how long its next user waits there."""

import time
from collections.abc import Mapping
from contextlib import ExitStack

from e2b import Sandbox, SandboxState

from bench.rows import SETTLE_S, Row, count
from bench.samples import Samples, available_mib, milliseconds
from bench.sleep_rows import HEAP_MIB, MEMORY, heavy
from bench.target import Target
from tests.e2e.waiting import until

RUNNING = "running"
LADDERS: Mapping[str, str] = {RUNNING: "", "frozen": "*=1/-/-", "reclaimed": "*=-/1/-", "on disk": "*=-/-/1"}
"""A server for each step: all its sandboxes go there at once, and no deeper."""
ASLEEP_S = 60
AT_ONCE = 8


def rows(step: str) -> tuple[Row, ...]:
    only = MEMORY if step == "on disk" else frozenset[str]()

    def memory(target: Target, scale: float) -> Samples:
        return Samples().measure(max(1, round(2 * scale)), lambda: _memory(target, step))

    def wake(target: Target, scale: float) -> Samples:
        with heavy(target) as sandbox:
            return Samples().measure(count(5, scale), lambda: _wake(sandbox))

    takes = Row(f"memory, {step}, {HEAP_MIB} MiB heap", "MiB", memory, {}, only=only)
    return (takes,) if step == RUNNING else (takes, Row(f"first answer, {step}", "ms", wake, {}, only=only))


def _memory(target: Target, step: str) -> float:
    """The fall of MemAvailable by one of some, once all are there."""
    time.sleep(SETTLE_S)
    before = available_mib()
    with ExitStack() as stack:
        for sandbox in [stack.enter_context(heavy(target)) for _ in range(AT_ONCE)]:
            if step != RUNNING:
                _fall_asleep(sandbox)
        time.sleep(SETTLE_S)
        return (before - available_mib()) / AT_ONCE


def _wake(sandbox: Sandbox) -> float:
    _fall_asleep(sandbox)
    time.sleep(SETTLE_S)
    return milliseconds(lambda: sandbox.commands.run("true"))


def _fall_asleep(sandbox: Sandbox) -> None:
    until(lambda: sandbox.get_info().state is SandboxState.PAUSED, ASLEEP_S, "it sleeps")
