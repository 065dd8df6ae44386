"""`make bench-compare`: the same measures on an earlier commit's server and on this checkout's, in one job.

Never a stored baseline: both servers run side by side on the same machine, and each row is taken on one after the
other. The measuring code is this checkout's for both.
"""

import argparse
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import report
from bench.measuring import chosen, measure
from bench.rows import ROWS
from bench.warren_target import WarrenTarget
from tests.e2e.local_server import LocalServer

HERE = Path(__file__).resolve().parents[1]
SHORT = ("create", "warm", "1 MiB", "64 MiB", "burst of 10", "delete", "at 20")
"""Of the rows, what takes minutes and not hours."""
MAX_SLOTS = 250


def main() -> None:
    wanted = _arguments()
    if os.geteuid() != 0:
        raise SystemExit("cannot measure as another user than root: sandboxes need it")
    rows = chosen(ROWS, wanted.only or SHORT)
    rows = rows if wanted.only else [row for row in rows if not row.name.startswith("create the last")]
    with tempfile.TemporaryDirectory(prefix="warren-compare-") as name, ExitStack() as stack:
        folder = Path(name)
        before = stack.enter_context(_checkout(wanted.commit, folder / "before"))
        _build(before)
        _build(HERE)
        servers = [stack.enter_context(_server(tree, folder / f"{tree.name}-state")) for tree in (before, HERE)]
        pairs = {runtime: (f"{runtime} before", f"{runtime} now") for runtime in wanted.runtimes}
        targets = [
            WarrenTarget(label, server, runtime)
            for runtime, labels in pairs.items()
            for label, server in zip(labels, servers, strict=True)
        ]
        results = measure(rows, targets, wanted.scale)
    print("\n" + report.comparison(rows, pairs, results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("commit", nargs="?", default="HEAD~1", help="what to compare this checkout with")
    parser.add_argument("--runtimes", type=lambda text: text.split(","), default=["runsc", "crun"])
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies how often each thing is done")
    parser.add_argument("--only", action="append", help="rows whose name contains this; may be repeated")
    return parser.parse_args()


@contextmanager
def _checkout(commit: str, folder: Path) -> Iterator[Path]:
    git = ["git", "-C", str(HERE), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def _build(tree: Path) -> None:
    """Its Python environment, its guestd, its template: none of them replaces what another checkout uses."""
    subprocess.run([tree / "scripts" / "setup", "packages", "python", "runsc", "template"], check=True)
    subprocess.run(["make", "-s", "-C", tree / "guestd", "build", f"GO={tree}/scripts/go"], check=True)


def _server(tree: Path, folder: Path) -> LocalServer:
    guestd = tree / "guestd" / "bin" / "guestd"
    command = tree / ".venv" / "bin" / "warren"
    return LocalServer(folder, command=command, guestd_path=str(guestd), pool_slots=12, max_slots=MAX_SLOTS)


if __name__ == "__main__":
    main()
