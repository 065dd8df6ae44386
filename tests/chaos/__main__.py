"""`make chaos`: crash points, then rounds under fire: an hour or so. Ends with 1 when anything was found.

The crash points of an operation come in random order, until its time is over; with CHAOS_SECONDS=inf each one comes.

CHAOS_PARTS       some of points, rounds, pools, sleep, damage
CHAOS_OPERATIONS  the crash points of some operations alone, under one runtime or both: "fork pause/runsc"
CHAOS_SECONDS     nothing new is begun of an operation, or of a part with rounds, after so many seconds
CHAOS_ROUNDS      instead of 2000; the other rounds are shortened in proportion
CHAOS_SEED        repeats the faults of an earlier run, and its order of crash points
"""

import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.build_operations import build_operation
from tests.chaos.crash_points import STRAYS_S, CrashingServer, calls_of, clear, crash, strays
from tests.chaos.damage import damage_rounds
from tests.chaos.operations import OPERATIONS, POOL_OPERATIONS, Operation, checkpoints
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
from tests.e2e.small_disk import PLENTY_MB, on_a_disk_of_its_own
from tests.e2e.waiting import until
from tests.image_registry import image_registry

WHOLE = 2000
SHARE = int(os.environ.get("CHAOS_ROUNDS", str(WHOLE))) / WHOLE
POINTS_S, ROUNDS_S = (float(os.environ.get("CHAOS_SECONDS", default)) for default in ("75", "600"))
ONLY = frozenset(os.environ.get("CHAOS_OPERATIONS", "").split())
SEED = int(os.environ.get("CHAOS_SEED", str(time.time_ns() % 1_000_000)))
SUMMARY: list[str] = []
DAMAGE_ROUNDS = 40
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
        "damage": _damage,
    }
    chosen = os.environ.get("CHAOS_PARTS", " ".join(parts)).split()
    findings = [finding for part in chosen for finding in parts[part]()]
    print("", *SUMMARY, sep="\n")
    print("zero leaks, nothing lost" if not findings else f"{len(findings)} FINDINGS")
    for finding in findings:
        print(f"  {finding}")
    return 1 if findings else 0


def _crash_points() -> Iterator[str]:
    yield from _points_of((*OPERATIONS, *SLEEP_OPERATIONS))
    yield from _points_of(POOL_OPERATIONS, **POOL)
    with tempfile.TemporaryDirectory(prefix="warren-chaos-") as folder, image_registry(Path(folder)) as registry:
        for runtime in RUNTIMES:  # steps run under the server's own
            operation = build_operation(registry)
            yield from _points_of((operation,), (runtime,), runtime=runtime, registry_insecure=registry.host)


def _points_of(
    operations: Sequence[Operation], runtimes: Sequence[str] = RUNTIMES, **settings: str | int
) -> Iterator[str]:
    chosen = [pair for pair in itertools.product(operations, runtimes) if _is_chosen(*pair)]
    if not chosen:
        return
    with tempfile.TemporaryDirectory(prefix="warren-chaos-") as folder:
        server = CrashingServer(Path(folder), **{"pool_slots": 2, **settings})
        with _clean(server) as left:
            try:
                for operation, runtime in chosen:
                    yield from _points_in(server, operation, runtime)
            finally:
                server.plan("")
        yield from left


def _is_chosen(operation: Operation, runtime: str) -> bool:
    return not ONLY or not ONLY.isdisjoint((operation.name, f"{operation.name}/{runtime}"))


def _points_in(server: CrashingServer, operation: Operation, runtime: str) -> Iterator[str]:
    began, tried, missed = time.monotonic(), 0, 0
    points = calls_of(server, operation, runtime)
    for point in random.Random(SEED).sample(points, len(points)):
        if time.monotonic() - began > POINTS_S:
            break
        tried += 1
        try:
            missed += not crash(server, operation, point, runtime)
        except Exception as error:
            yield _told(f"{operation.name} under {runtime}, {point}: {type(error).__name__}: {error}")
            _begin_anew(server)
    took = time.monotonic() - began
    _sum_up(f"{operation.name} under {runtime}: {tried} of {len(points)} crash points, {missed} not met, {took:.0f} s")


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
        with _clean(server) as left:
            chaos = Chaos(server, rounds.workers, SEED, rounds.deed, rounds.fault_every_s)
            for server_dies in (True, False):
                chaos.run(count // 2, server_dies=server_dies, progress=_tell, within_s=ROUNDS_S / 2)
            clear(server)
            try:
                until(lambda: not strays(server), STRAYS_S, "no strays")
                until(lambda: not checkpoints(server), STRAYS_S, "no checkpoints")
            except AssertionError:
                there = sorted(strays(server) | checkpoints(server))
                left.append(f"{rounds.what}: left by a server that lives: {there}")
        for line in summary(chaos.outcome):
            _sum_up(f"{rounds.what}: {line}")
        yield from map(_told, _judged(rounds, chaos.outcome))
        yield from left


def _damage() -> Iterator[str]:
    """Of checkpoints: a disk that fills up while one is written, and images that are not what they were."""
    count = max(2, round(DAMAGE_ROUNDS * SHARE))
    with tempfile.TemporaryDirectory(prefix="warren-chaos-") as folder:
        server = LocalServer(Path(folder), pool_slots=2, disk_overcommit=1000)
        with on_a_disk_of_its_own(server, PLENTY_MB), _clean(server) as left:
            yield from map(_told, damage_rounds(server, count, SEED))
        yield from left
    _sum_up(f"{count} rounds on a disk that fails checkpoints")


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
    """Runs it, and ends it with all its sandboxes; the list is filled when something is left behind."""
    left: list[str] = []
    try:
        with nothing_left(server), server:
            try:
                yield left
            finally:
                server.kill()
                server.settings["WARREN_STOP_SANDBOXES_ON_EXIT"] = "true"
                server.start()
    except AssertionError as error:
        left.append(str(error))


def _told(finding: str) -> str:
    print(f"  FOUND {finding}", flush=True)
    return finding


def _sum_up(line: str) -> None:
    print(line, flush=True)
    SUMMARY.append(line)


def _tell(finished: int) -> None:
    if finished % 100 == 0:
        print(f"  {finished}", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))  # and leave nothing behind
    sys.exit(main())
