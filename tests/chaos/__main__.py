"""`make chaos`: all crash points, then rounds under fire. CHAOS_ROUNDS, CHAOS_POINTS, CHAOS_SEED shorten or repeat it.

CHAOS_POINTS=N tries every N-th crash point of each operation; 0 none. Ends with 1 when anything was found.
"""

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.crash_points import CrashingServer, calls_of, crash
from tests.chaos.operations import OPERATIONS
from tests.chaos.rounds import RUNTIMES, SLOWER, Chaos, summary
from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "2000"))
EVERY = int(os.environ.get("CHAOS_POINTS", "1"))
SEED = int(os.environ.get("CHAOS_SEED", str(time.time_ns() % 1_000_000)))
WORKERS = 8


def main() -> int:
    findings = [*(_crash_points() if EVERY else ()), *_rounds()]
    print("\nzero leaks, nothing lost" if not findings else f"\n{len(findings)} FINDINGS")
    for finding in findings:
        print(f"  {finding}")
    return 1 if findings else 0


def _crash_points() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="warren-chaos-") as folder:
        server = CrashingServer(Path(folder), pool_slots=2)
        with _clean(server) as left, server:
            for operation, runtime in itertools.product(OPERATIONS, RUNTIMES):
                points = calls_of(server, operation, runtime)[::EVERY]
                missed = 0
                for point in points:
                    try:
                        missed += not crash(server, operation, point, runtime)
                    except Exception as error:
                        yield f"{operation.name} under {runtime}, {point}: {type(error).__name__}: {error}"
                        _begin_anew(server)
                print(f"{operation.name} under {runtime}: {len(points)} crash points, {missed} not met", flush=True)
        yield from left


def _begin_anew(server: CrashingServer) -> None:
    server.plan("")
    server.kill()
    server.start()


def _rounds() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="warren-chaos-") as folder:
        server = LocalServer(Path(folder), pool_slots=8)
        print(f"\n{ROUNDS} rounds, {WORKERS} at once, seed {SEED}", flush=True)
        with _clean(server) as left, server:
            chaos = Chaos(server, WORKERS, SEED)
            chaos.run(ROUNDS // 2, server_dies=True, progress=_tell)
            chaos.run(ROUNDS - ROUNDS // 2, server_dies=False, progress=_tell)
            server.settings["WARREN_STOP_SANDBOXES_ON_EXIT"] = "true"
            server.stop()
            server.start()
        outcome = chaos.outcome
        print("\n".join(summary(outcome)), flush=True)
        yield from (f"round {each.number} ({each.runtime}): {each.error}" for each in outcome.wrong)
        if not outcome.is_flat:
            yield f"the server grew by {outcome.grew_by >> 20} MiB"
        for runtime in RUNTIMES:
            first, last = outcome.create_times(runtime)
            if last > SLOWER * first:
                yield f"create under {runtime} became slower: {first * 1000:.0f} ms, then {last * 1000:.0f} ms"
        yield from left


@contextmanager
def _clean(server: LocalServer) -> Iterator[list[str]]:
    """The list is filled when something is left behind."""
    left: list[str] = []
    try:
        with nothing_left(server):
            yield left
    except AssertionError as error:
        left.append(str(error))


def _tell(finished: int) -> None:
    if finished % 100 == 0:
        print(f"  {finished}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
