"""`make chaos`: all crash points, then rounds under fire. Ends with 1 when anything was found.

CHAOS_PARTS: some of points, rounds, pools, sleep. CHAOS_ROUNDS shortens the rounds in proportion, CHAOS_POINTS=N tries
every N-th crash point of each operation, CHAOS_SEED repeats the faults of an earlier run.
"""

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.crash_points import CrashingServer, calls_of, clear, crash
from tests.chaos.operations import OPERATIONS, POOL_OPERATIONS, Operation
from tests.chaos.rounds import (
    FAULT_EVERY_S,
    RUNTIMES,
    SLOWER,
    Chaos,
    Deed,
    Outcome,
    sleep_and_fork,
    summary,
    write_and_read,
)
from tests.chaos.sleep_operations import SLEEP_OPERATIONS
from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer

WHOLE = 2000
SHARE = int(os.environ.get("CHAOS_ROUNDS", str(WHOLE))) / WHOLE
EVERY = int(os.environ.get("CHAOS_POINTS", "1"))
SEED = int(os.environ.get("CHAOS_SEED", str(time.time_ns() % 1_000_000)))
POOL: Mapping[str, str | int] = {"pool": "base/runsc=2,base/crun=2", "pool_sandboxes": 6}


@dataclass(frozen=True, slots=True)
class Rounds:
    what: str
    count: int
    workers: int
    deed: Deed = write_and_read
    fault_every_s: float = FAULT_EVERY_S
    settings: Mapping[str, str | int] = field(default_factory=dict[str, str | int])


ROUNDS = Rounds("create, use, kill", WHOLE, workers=8)
POOL_ROUNDS = Rounds("create, use, kill with a pool", 1000, workers=8, settings=POOL)
SLEEP_ROUNDS = Rounds("pause, resume, fork", 200, workers=4, deed=sleep_and_fork, fault_every_s=6)


def main() -> int:
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "points": _crash_points,
        "rounds": lambda: _rounds(ROUNDS),
        "pools": lambda: _rounds(POOL_ROUNDS),
        "sleep": lambda: _rounds(SLEEP_ROUNDS),
    }
    chosen = os.environ.get("CHAOS_PARTS", " ".join(parts)).split()
    findings = [finding for part in chosen for finding in parts[part]()]
    print("\nzero leaks, nothing lost" if not findings else f"\n{len(findings)} FINDINGS")
    for finding in findings:
        print(f"  {finding}")
    return 1 if findings else 0


def _crash_points() -> Iterator[str]:
    yield from _points_of((*OPERATIONS, *SLEEP_OPERATIONS))
    yield from _points_of(POOL_OPERATIONS, POOL)


def _points_of(operations: tuple[Operation, ...], settings: Mapping[str, str | int] | None = None) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="warren-chaos-") as folder:
        server = CrashingServer(Path(folder), pool_slots=2, **settings or {})
        with _clean(server) as left, server:
            for operation, runtime in itertools.product(operations, RUNTIMES):
                points = calls_of(server, operation, runtime)[::EVERY]
                missed = 0
                for point in points:
                    try:
                        missed += not crash(server, operation, point, runtime)
                    except Exception as error:
                        yield _told(f"{operation.name} under {runtime}, {point}: {type(error).__name__}: {error}")
                        _begin_anew(server)
                print(f"{operation.name} under {runtime}: {len(points)} crash points, {missed} not met", flush=True)
        yield from left


def _begin_anew(server: CrashingServer) -> None:
    server.plan("")
    server.kill()
    server.start()
    clear(server)  # what the last point left would be taken for the next one's


def _rounds(rounds: Rounds) -> Iterator[str]:
    """One half while the server dies too, the other while it lives on and is measured."""
    count = max(2, round(rounds.count * SHARE))
    with tempfile.TemporaryDirectory(prefix="warren-chaos-") as folder:
        server = LocalServer(Path(folder), **{"pool_slots": 8, **rounds.settings})
        print(f"\n{count} rounds of {rounds.what}, {rounds.workers} at once, seed {SEED}", flush=True)
        with _clean(server) as left, server:
            chaos = Chaos(server, rounds.workers, SEED, rounds.deed, rounds.fault_every_s)
            chaos.run(count // 2, server_dies=True, progress=_tell)
            chaos.run(count - count // 2, server_dies=False, progress=_tell)
            server.settings["WARREN_STOP_SANDBOXES_ON_EXIT"] = "true"
            server.stop()
            server.start()
        print("\n".join(summary(chaos.outcome)), flush=True)
        yield from map(_told, _judged(rounds, chaos.outcome))
        yield from left


def _judged(rounds: Rounds, outcome: Outcome) -> Iterator[str]:
    for each in outcome.wrong:
        yield f"{rounds.what}, round {each.number} ({each.runtime}): {each.error}"
    if not outcome.is_flat:
        yield f"{rounds.what}: the server grew by {outcome.grew_by >> 20} MiB"
    for runtime in RUNTIMES:
        first, last = outcome.create_times(runtime)
        if outcome.can_compare(runtime) and last > SLOWER * first:
            yield f"{rounds.what}: create under {runtime} took {first * 1000:.0f} ms, then {last * 1000:.0f} ms"


@contextmanager
def _clean(server: LocalServer) -> Iterator[list[str]]:
    """The list is filled when something is left behind."""
    left: list[str] = []
    try:
        with nothing_left(server):
            yield left
    except AssertionError as error:
        left.append(str(error))


def _told(finding: str) -> str:
    print(f"  FOUND {finding}", flush=True)
    return finding


def _tell(finished: int) -> None:
    if finished % 100 == 0:
        print(f"  {finished}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
