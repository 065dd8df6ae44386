import json
import sqlite3
from pathlib import Path

import pytest

from warren.cli.app import run
from warren.cli.machine import LocalAccess, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(
        environ={"WARREN_STATE_DIR": str(tmp_path / "state")},
        is_root=True,
        serve=lambda _: None,
        prepare=lambda settings: LocalAccess("", settings.tls_dir),
    )


def test_upgrade_makes_what_is_not_there_and_check_finds_it_sound(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["db", "check"], machine) == 1
    assert "cannot find the database" in capsys.readouterr().err
    assert run(["db", "upgrade"], machine) == 0
    assert "it was empty" in capsys.readouterr().out
    assert run(["db", "upgrade"], machine) == 0
    assert "the newest" in capsys.readouterr().out
    assert run(["db", "check"], machine) == 0
    assert "sound" in capsys.readouterr().out


def test_findings_are_an_exit_code(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["db", "upgrade"], machine) == 0
    with sqlite3.connect(machine.settings().state_dir / "warren.db") as rows:
        rows.execute("UPDATE alembic_version SET version_num = '0001'")
    capsys.readouterr()
    assert run(["db", "check", "--json"], machine) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["version"], len(found["findings"])) == (False, "0001", 1)


def test_a_backup_that_cannot_be_written_is_one_line(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["db", "upgrade"], machine) == 0
    assert run(["db", "backup", "/nowhere/at/all.db"], machine) == 1
    assert capsys.readouterr().err.startswith("warren: cannot")
