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

from bench import docker_target, gateway_overhead, report
from bench.rows import ROWS, Row
from bench.samples import Samples
from bench.target import Target
from bench.warren_target import WarrenTarget
from tests.e2e.local_server import LocalServer


def main() -> None:
    wanted = _arguments()
    if os.geteuid() != 0:
        raise SystemExit("cannot measure as another user than root: sandboxes need it")
    rows = [row for row in ROWS if not wanted.only or any(word in row.name for word in wanted.only)]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="warren-bench-") as folder, ExitStack() as stack:
        server = stack.enter_context(LocalServer(Path(folder), pool_slots=12, max_slots=60))
        warren = [WarrenTarget(name, server) for name in wanted.runtimes]
        targets: list[Target] = [*warren, *_docker(stack, server, wanted.no_docker)]
        print(f"warren on {os.cpu_count()} cores; scale {wanted.scale:g}\n", flush=True)
        results = _measure(rows, targets, wanted.scale)
        overheads = [(target.name, _overhead(server, target)) for target in warren]
    print("\n" + report.table(rows, [target.name for target in targets], results))
    for name, overhead in overheads:
        print(report.overhead_line(name, overhead))
    print(f"\n{time.monotonic() - started:.0f} s")


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
    images = sorted(server.state.glob("templates/*/rootfs.erofs"))
    try:
        return [stack.enter_context(docker_target.private_docker(images[0]))]
    except (RuntimeError, IndexError, OSError) as error:
        print(f"without docker: {error}", file=sys.stderr)
        return []


def _measure(rows: list[Row], targets: list[Target], scale: float) -> dict[tuple[str, str], Samples]:
    """Target after target within a row, so that a slow minute of the machine hits all of them."""
    results: dict[tuple[str, str], Samples] = {}
    for row in rows:
        for target in targets:
            try:
                samples = row.take(target, scale)
            except Exception as error:
                samples = Samples(failures=[f"{type(error).__name__}: {error}".splitlines()[0]])
            results[row.name, target.name] = samples
            print(report.line(row, target.name, samples), flush=True)
    return results


def _overhead(server: LocalServer, target: WarrenTarget) -> gateway_overhead.Overhead:
    box = target.create()
    try:
        return gateway_overhead.measure(server, box)
    finally:
        box.delete()


if __name__ == "__main__":
    main()
