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

from bench import docker_target, gateway_overhead, guest_start, report
from bench.measuring import chosen, measure
from bench.target import Target
from bench.warren_target import WarrenTarget
from tests.e2e.local_server import LocalServer
from warren.settings import load

MAX_SLOTS = 250
"""Sandboxes at once: more than any row wants, less than a /24 has."""


def main() -> None:
    wanted = _arguments()
    if os.geteuid() != 0:
        raise SystemExit("cannot measure as another user than root: sandboxes need it")
    rows = chosen(wanted.only)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="warren-bench-") as folder, ExitStack() as stack:
        server = stack.enter_context(LocalServer(Path(folder), pool_slots=12, max_slots=MAX_SLOTS))
        warren = [WarrenTarget(name, server, name) for name in wanted.runtimes]
        targets: list[Target] = [*warren, *_docker(stack, server, wanted.no_docker)]
        print(f"warren on {os.cpu_count()} cores; scale {wanted.scale:g}\n", flush=True)
        results = measure(rows, targets, wanted.scale)
        guest = guest_start.best_ms(load(os.environ).guestd)
        overheads = [(target.name, _overhead(server, target)) for target in warren]
    print("\n" + report.table(rows, [target.name for target in targets], results))
    for name, overhead in overheads:
        print(report.overhead_line(name, overhead))
    print("\n".join([report.guest_line(guest), *report.growth_lines([target.name for target in warren], results)]))
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


def _overhead(server: LocalServer, target: WarrenTarget) -> gateway_overhead.Overhead:
    box = target.create()
    try:
        return gateway_overhead.measure(server, box)
    finally:
        box.delete()


if __name__ == "__main__":
    main()
