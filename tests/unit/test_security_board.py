"""The tables of SECURITY.md say what the tests show, and no more."""

from tests.security.board import table
from tests.security.board.gaps import GAPS
from tests.security.board.marks import proofs
from tests.security.board.rows import ROWS, RUNTIMES


def test_every_row_is_shown_by_a_test_or_is_a_known_gap() -> None:
    shown = proofs("threat")
    assert [
        (row, runtime) for row in ROWS for runtime in RUNTIMES if table.state(row, runtime, shown) == "no probe"
    ] == []


def test_marks_and_gaps_name_rows_that_there_are() -> None:
    named = {*proofs("threat"), *proofs("switched_off"), *(gap.row for gap in GAPS)}
    assert sorted(named - ROWS.keys()) == []


def test_what_holds_in_part_is_shown_too() -> None:
    shown = proofs("threat")
    partly = [(gap.row, runtime) for gap in GAPS if gap.held == "in part" for runtime in gap.runtimes]
    assert [pair for pair in partly if not any(pair[1] in proof.runtimes for proof in shown.get(pair[0], []))] == []


def test_security_md_has_the_tables() -> None:
    _, _, rest = table.SECURITY.read_text().partition(table.BEGIN)
    written, _, _ = rest.partition(table.END)
    assert written.strip() == table.tables(), (
        "run `python -m tests.security.board.table` and put its output into SECURITY.md; rows and known gaps are in "
        "tests/security/board/"
    )
