"""`python -m tests.security.board.table` prints the tables of SECURITY.md between the two marks.

A row is held when a test shows it under that runtime and no gap is known (gaps.py). ‡: the control was switched off in
a test, and the probe saw it.
"""

from collections import defaultdict
from pathlib import Path

from tests.security.board.gaps import GAPS
from tests.security.board.marks import Proof, proofs
from tests.security.board.rows import PARTS, ROWS, RUNTIMES

SECURITY = Path(__file__).parents[3] / "SECURITY.md"
BEGIN, END = "<!-- board: begin -->", "<!-- board: end -->"


def state(row: str, runtime: str, shown: dict[str, list[Proof]]) -> str:
    for gap in GAPS:
        if gap.row == row and runtime in gap.runtimes:
            return gap.held
    return "held" if any(runtime in proof.runtimes for proof in shown.get(row, [])) else "no probe"


def tables() -> str:
    shown, switched = proofs("threat"), proofs("switched_off")
    lines: list[str] = []
    for part, title in PARTS.items():
        lines += [f"### {title}", "", "| Row | Try | gVisor | crun | How | Shown by |", "|---|---|---|---|---|---|"]
        for row in (row for row in ROWS if row.startswith(part)):
            cells = [_cell(row, runtime, shown, switched) for runtime in RUNTIMES]
            lines.append(f"| {row} | {ROWS[row].attempt} | {' | '.join(cells)} | {_how(row)} | {_tests(row, shown)} |")
        lines.append("")
    return "\n".join(lines).strip()


def _cell(row: str, runtime: str, shown: dict[str, list[Proof]], switched: dict[str, list[Proof]]) -> str:
    proved = any(runtime in proof.runtimes for proof in switched.get(row, []))
    return state(row, runtime, shown) + (" ‡" if proved else "")


def _how(row: str) -> str:
    names = {"runsc": "gVisor", "crun": "crun"}
    notes = [
        (f"{names[gap.runtimes[0]]}: " if len(gap.runtimes) == 1 else "") + gap.why for gap in GAPS if gap.row == row
    ]
    return "; ".join([ROWS[row].control, *(f"**{note}**" for note in notes)])


def _tests(row: str, shown: dict[str, list[Proof]]) -> str:
    modules: dict[str, list[str]] = defaultdict(list)
    for proof in shown.get(row, []):
        module, _, test = proof.test.partition("::")
        modules[module].append(test)
    parts = [module + "".join(f" `{test}`" for test in tests if test) for module, tests in modules.items()]
    return "<br>".join(parts) or "nothing"


if __name__ == "__main__":
    print(tables())
