"""`make bench`: medians through the unmodified SDK on this machine, beside docker on the same root file system.

Numbers of a noisy machine: compare columns of one run, not runs.
"""

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench import (
    docker_target,
    gateway_overhead,
    guest_start,
    idle_rows,
    image_unpack,
    interpreter_rows,
    report,
    runsc_floor,
)
from bench.build_rows import ROWS as BUILD_ROWS
from bench.measuring import chosen, measure
from bench.neighbour_rows import ROWS as NEIGHBOUR_ROWS
from bench.rows import BURST_POOL, POOL_ROWS, ROWS, SPARES, Row
from bench.samples import Samples
from bench.sleep_rows import HEAP_MIB
from bench.sleep_rows import ROWS as SLEEP_ROWS
from bench.target import Target
from bench.warren_target import WarrenTarget
from tests.e2e.local_server import LocalServer
from warren.settings import load

FLOOR_TIMES = 7
MAX_SLOTS = 250
"""Sandboxes at once: more than any row wants, less than a /24 has."""


def main() -> None:
    wanted = _arguments()
    if os.geteuid() != 0:
        raise SystemExit("cannot measure as another user than root: sandboxes need it")
    tables = (ROWS, POOL_ROWS, SLEEP_ROWS, BUILD_ROWS, NEIGHBOUR_ROWS, interpreter_rows.ROWS)
    rows, pool_rows, sleep_rows, build_rows, beside_rows, code_rows = (chosen(table, wanted.only) for table in tables)
    ladder = {step: chosen(idle_rows.rows(step), wanted.only) for step in idle_rows.LADDERS}
    started = time.monotonic()
    print(f"warren on {os.cpu_count()} cores; scale {wanted.scale:g}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="warren-bench-") as name:
        folder = Path(name)
        with LocalServer(folder / "cold", pool_slots=12, max_slots=MAX_SLOTS) as server, ExitStack() as stack:
            warren = [WarrenTarget(name, server, name) for name in wanted.runtimes]
            targets: list[Target] = [*warren, *_docker(stack, server, wanted.no_docker)]
            results = measure(rows, targets, wanted.scale)
            slept = measure(sleep_rows, warren, wanted.scale)
            rebuilt = measure(build_rows, warren, wanted.scale)
            crowded = measure(beside_rows, warren, wanted.scale)
            single = [] if wanted.only else _single_lines(server, warren)
        pooled = _measure_pool(folder / "pooled", pool_rows, wanted, "base", SPARES)
        ran = _measure_pool(folder / "code", code_rows, wanted, interpreter_rows.TEMPLATE, interpreter_rows.SPARES)
        idle = _measure_idle(folder / "idle", ladder, wanted)
    names = [target.name for target in targets]
    print("\n" + report.table(rows, names, results))
    idle_table = [row for step in ladder.values() for row in step]
    others = (
        (pool_rows, pooled), (sleep_rows, slept), (idle_table, idle), (build_rows, rebuilt), (beside_rows, crowded),
        (code_rows, ran),
    )  # fmt: skip
    for table, found in others:
        if table:
            print("\n" + report.table(table, wanted.runtimes, found))
    print("\n" + "\n".join([*single, *report.growth_lines(wanted.runtimes, results)]))
    print(f"\n{time.monotonic() - started:.0f} s")


def _measure_pool(
    folder: Path, rows: list[Row], wanted: argparse.Namespace, template: str, spares: int
) -> dict[tuple[str, str], Samples]:
    """On a server of its own for each runtime, so that no pool of the other one refills meanwhile."""
    found: dict[tuple[str, str], Samples] = {}
    for runtime in wanted.runtimes if rows else []:
        pool = {"pool": f"{template}/{runtime}={spares}", "pool_sandboxes": spares, "pool_memory_mb": spares * 1024}
        with LocalServer(folder / runtime, pool_slots=BURST_POOL, max_slots=MAX_SLOTS, **pool) as server:
            found |= measure(rows, [WarrenTarget(runtime, server, runtime, pooled=True)], wanted.scale)
    return found


def _measure_idle(
    folder: Path, ladder: dict[str, list[Row]], wanted: argparse.Namespace
) -> dict[tuple[str, str], Samples]:
    """Each step on a server of its own, whose sandboxes all go there."""
    found: dict[tuple[str, str], Samples] = {}
    for step, rows in ladder.items():
        if rows:
            with LocalServer(
                folder / step.replace(" ", "-"), pool_slots=12, max_slots=50, idle=idle_rows.LADDERS[step]
            ) as server:
                found |= measure(rows, [WarrenTarget(name, server, name) for name in wanted.runtimes], wanted.scale)
    return found


def _single_lines(server: LocalServer, warren: list[WarrenTarget]) -> list[str]:
    """What is no row: one number each."""
    settings = load(os.environ)
    lines = [report.overhead_line(target.name, _overhead(server, target)) for target in warren]
    lines.append(report.guest_line(guest_start.best_ms(settings.guestd)))
    lines.append(report.image_line(image_unpack.measure(settings.cache_dir / "bench")))
    image = docker_target.base_image(server.state)
    saved, restored = runsc_floor.measure(settings.runsc, image, HEAP_MIB, FLOOR_TIMES)
    return [*lines, report.floor_line("checkpoint", saved), report.floor_line("restore", restored)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--runtimes", type=lambda text: text.split(","), default=["runsc", "crun"])
    parser.add_argument("--no-docker", action="store_true", help="do not measure docker beside it")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies how often each thing is done")
    parser.add_argument("--only", action="append", help="rows whose name contains this; may be repeated")
    return parser.parse_args()


def _docker(stack: ExitStack, server: LocalServer, unwanted: bool) -> list[Target]:
    if unwanted or not docker_target.installed():
        print("without docker: not asked for, or Debian's docker.io is not installed", file=sys.stderr)
        return []
    try:
        return [stack.enter_context(docker_target.private_docker(docker_target.base_image(server.state)))]
    except (RuntimeError, ValueError, OSError) as error:
        print(f"without docker: {error}", file=sys.stderr)
        return []


def _overhead(server: LocalServer, target: WarrenTarget) -> gateway_overhead.Overhead:
    box = target.create()
    try:
        return gateway_overhead.measure(server, box)
    finally:
        box.delete()


if __name__ == "__main__":
    main()
