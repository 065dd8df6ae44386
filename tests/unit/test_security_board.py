"""The tables of SECURITY.md say what the tests show, and no more."""

import json
from pathlib import Path

import pytest

from tests.security.board import score, table
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


def _line(path: Path, **result: object) -> str:
    told = {"mark": "threat", "rows": ["A2"], "runtime": "crun", "why": "", **result}
    path.write_text(path.read_text() + json.dumps(told) + "\n" if path.exists() else json.dumps(told) + "\n")
    return str(path)


def test_a_row_is_held_when_all_that_shows_it_passed_and_lost_when_one_did_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = tmp_path / "board"
    for proof in proofs("threat")["A2"]:
        _line(board, test=f"tests/{proof.test.replace('::', '.py::')}[crun]", outcome="passed")
    score.main([str(board)])
    assert "A2 under crun" not in capsys.readouterr().out
    _line(board, test="tests/test_x.py::test_green", outcome="failed", mark="switched_off")
    assert score.main([str(board)]) == 1
    assert "not proved A2" in capsys.readouterr().out
    _line(board, test="tests/test_walls.py::test_is_refused[crun]", outcome="failed")
    assert score.main([str(board)]) == 1
    assert "not held A2 under crun" in capsys.readouterr().out


def test_what_did_not_run_is_not_held_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skipped = {"test": "tests/test_probes.py::test_devices_are_ours[docker]", "outcome": "skipped", "rows": ["A4"]}
    board = _line(tmp_path / "docker", **skipped, runtime="docker", why="Skipped: docker is not installed")
    assert score.main([board]) == 1
    assert capsys.readouterr().out == "nothing was tried: docker is not installed\n"
    board = _line(tmp_path / "crun", test="tests/x.py::test_y", outcome="passed", rows=["A4"])
    assert score.main([board]) == 1
    assert "not tried A4 under crun: test_probes::test_devices_are_ours: it did not run" in capsys.readouterr().out
