"""`python -m tests.security.board.score FILE…` prints the score board of a run.

It fails when a row lost its hold, when a probe stayed green without its control, and when a test that shows a row was
not there or was skipped: what was not tried is not held.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.security.board.marks import Proof, proofs
from tests.security.board.rows import PARTS, ROWS, RUNTIMES
from tests.security.board.table import state

STYLES = {"held": "green", "in part": "yellow"}


@dataclass(frozen=True, slots=True)
class Result:
    """One test of one row. `runtime` is None where it does not matter, `why` is the reason of who skipped."""

    mark: str
    rows: Sequence[str]
    runtime: str | None
    test: str
    outcome: str
    why: str = ""

    @property
    def name(self) -> str:
        """Without its folder and parameters: as marks.py names it."""
        path, _, test = self.test.partition("::")
        return f"{Path(path).stem}::{test.split('[')[0]}"

    def shows(self, row: str, target: str) -> bool:
        return row in self.rows and self.runtime in (None, target)


def main(files: list[str]) -> int:
    results = [Result(**json.loads(line)) for file in files for line in Path(file).read_text().splitlines()]
    console = Console(width=160)
    if not any(result.outcome != "skipped" for result in results):
        reasons = sorted({result.why.removeprefix("Skipped: ") for result in results}) or ["no test ran"]
        console.print(f"[red]nothing was tried:[/] {'; '.join(reasons)}")
        return 1
    others = {result.runtime for result in results if result.runtime} - {*RUNTIMES}
    targets = sorted(others) or list(RUNTIMES)
    wrong = _board(console, results, targets)
    for line in wrong:
        console.print(line)
    return int(bool(wrong) and not others)


def _board(console: Console, results: Sequence[Result], targets: Sequence[str]) -> list[str]:
    """Print it; what is wrong, a line each."""
    shown = proofs("threat")
    wrong: list[str] = []
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    table = Table(title="What was tried, and whether it held", title_justify="left", header_style="bold")
    for name in ("row", "try", *targets, "shown by"):
        table.add_column(name, overflow="fold")
    for row, what in ROWS.items():
        verdicts: list[str] = []
        for target in targets:
            verdict, found = _verdict(row, target, [one for one in results if one.shows(row, target)], shown)
            wrong += found
            counts[target][verdict] += 1
            verdicts.append(f"[{STYLES.get(verdict, 'red')}]{verdict}[/]")
        ran = {one.name for one in results if row in one.rows and one.mark == "threat" and one.outcome != "skipped"}
        table.add_row(row, what.attempt, *verdicts, ", ".join(sorted(ran)))
        if row == [name for name in ROWS if name[0] == row[0]][-1]:
            table.add_section()
    console.print(table)
    console.print(*(f"{part}: {title}" for part, title in PARTS.items()), sep="   ")
    for target in targets:
        console.print(f"{target}: " + ", ".join(f"{number} {verdict}" for verdict, number in counts[target].items()))
    return wrong


def _verdict(row: str, target: str, results: Sequence[Result], shown: dict[str, list[Proof]]) -> tuple[str, list[str]]:
    failed = sorted({one.test for one in results if one.mark == "threat" and one.outcome == "failed"})
    green = sorted({one.test for one in results if one.mark == "switched_off" and one.outcome == "failed"})
    wrong = [f"[red]not held[/] {row} under {target}: {test}" for test in failed]
    wrong += [f"[red]not proved[/] {row}: without its control the probe did not turn red in {test}" for test in green]
    if failed:
        return "not held", wrong
    claim = state(row, target, shown) if target in RUNTIMES else "held"
    if claim not in STYLES:
        return claim, wrong
    missing = _missing(row, target, results, shown)
    if target in RUNTIMES:
        wrong += [f"[red]not tried[/] {row} under {target}: {reason}" for reason in missing]
    return "not tried" if missing else claim, wrong


def _missing(row: str, target: str, results: Sequence[Result], shown: dict[str, list[Proof]]) -> list[str]:
    """Tests that should have shown the row and did not pass anywhere; under another target any one is enough."""
    threats = [one for one in results if one.mark == "threat"]
    passed = {one.name for one in threats if one.outcome == "passed"}
    if target not in RUNTIMES:
        return [] if passed else ["no probe of this row runs there"]
    reasons = {one.name: one.why.removeprefix("Skipped: ") for one in threats if one.outcome == "skipped"}
    return [
        f"{proof.test}: {next((why for name, why in reasons.items() if _is_of(name, proof)), 'it did not run')}"
        for proof in shown.get(row, [])
        if target in proof.runtimes and not any(_is_of(name, proof) for name in passed)
    ]


def _is_of(name: str, proof: Proof) -> bool:
    """A mark of a whole module is shown by any test of it."""
    return proof.test in (name, name.partition("::")[0])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
