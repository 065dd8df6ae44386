"""`python -m tests.security.board.score FILE…` prints the score board of a run and fails when a row lost its hold."""

import json
import sys
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.security.board.marks import proofs
from tests.security.board.rows import PARTS, ROWS, RUNTIMES
from tests.security.board.table import state

STYLES = {"held": "green", "in part": "yellow"}


def main(files: list[str]) -> int:
    results = [json.loads(line) for file in files for line in Path(file).read_text().splitlines()]
    outcomes: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    targets = sorted({result["runtime"] for result in results if result["runtime"]} - {*RUNTIMES}) or list(RUNTIMES)
    for result in results:
        for row in result["rows"]:
            for target in [result["runtime"]] if result["runtime"] else targets:
                outcomes[row, target][result["outcome"]].add(result["test"])
    lost = _print(outcomes, targets)
    compared = not set(targets) <= set(RUNTIMES)
    return int(bool(lost) and not compared)


def _print(outcomes: dict[tuple[str, str], dict[str, set[str]]], targets: list[str]) -> list[str]:
    shown = proofs("threat")
    lost: list[str] = []
    table = Table(title="What was tried, and whether it held", title_justify="left", header_style="bold")
    for name in ("row", "try", *targets, "shown by"):
        table.add_column(name, overflow="fold")
    for row, what in ROWS.items():
        verdicts: list[str] = []
        tests: set[str] = set()
        for target in targets:
            ran = outcomes[row, target]
            tests |= ran["passed"] | ran["failed"]
            verdict = "not held" if ran["failed"] else _claim(row, target, shown)
            if verdict in STYLES and not ran["passed"]:
                verdict = "not tried"
            lost += [f"{row} under {target}: {test}" for test in sorted(ran["failed"])]
            verdicts.append(f"[{STYLES.get(verdict, 'red')}]{verdict}[/]")
        table.add_row(
            row, what.attempt, *verdicts, ", ".join(sorted({test.split("[")[0].split("/")[-1] for test in tests}))
        )
        if row == [name for name in ROWS if name[0] == row[0]][-1]:
            table.add_section()
    console = Console(width=160)
    console.print(table)
    console.print(*(f"{part}: {title}" for part, title in PARTS.items()), sep="   ")
    for line in lost:
        console.print(f"[red]not held[/] {line}")
    return lost


def _claim(row: str, target: str, shown: dict[str, list]) -> str:  # type: ignore[type-arg]
    return state(row, target, shown) if target in RUNTIMES else "held"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
