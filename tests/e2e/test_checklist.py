"""The promise of SPEC.md: every line of the checklist has its tests, and the table says which."""

from tests.e2e import checklist


def test_every_line_that_is_served_is_proved() -> None:
    assert [line for line in checklist.LINES if not checklist.proofs().get(line)] == []


def test_the_table_in_the_spec_is_the_truth() -> None:
    _, _, rest = checklist.SPEC.read_text().partition(checklist.BEGIN)
    written, _, _ = rest.partition(checklist.END)
    assert written.strip() == checklist.table(), "run `python -m tests.e2e.checklist` and put its output into SPEC.md"
