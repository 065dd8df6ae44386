import json
from pathlib import Path

import pytest

from warren.audit.chain import Chain
from warren.audit.folder import AuditFolder
from warren.cli.app import run
from warren.cli.machine import LocalAccess, Machine
from warren.control.clock import SystemClock


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    found = Machine(
        environ={"WARREN_STATE_DIR": str(tmp_path / "state"), "WARREN_API_PORT": "1"},
        is_root=True,
        serve=lambda _: None,
        prepare=lambda settings: LocalAccess("", settings.tls_dir),
    )
    assert run(["key", "create", "first"], found) == 0  # makes the default project
    return found


def limits(machine: Machine, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    assert run(["project", "list", "--json"], machine) == 0
    (row,) = json.loads(capsys.readouterr().out)
    return row


def test_a_limit_is_changed_and_written_down(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    before = limits(machine, capsys)
    assert run(["project", "limit", "default", "snapshot_mb=1024", "paused_days=7"], machine) == 0
    assert limits(machine, capsys) == before | {"snapshot_mb": 1024, "paused_days": 7}
    assert run(["audit", "list", "--kind", "project.limits"], machine) == 0
    assert "snapshot_mb" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["snapshot_mb", "snapshot_mb=", "snapshot_mb=-1", "paused_days=x", "colour=1", "id=1"])
def test_what_is_no_limit_is_refused(machine: Machine, capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert run(["project", "limit", "default", word], machine) == 1
    assert "cannot use" in capsys.readouterr().err
    assert run(["project", "limit", "nobody", "snapshot_mb=1"], machine) == 1
    assert "cannot find a project" in capsys.readouterr().err


def test_nothing_is_changed_while_it_cannot_be_written_down(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    before = limits(machine, capsys)
    with Chain(AuditFolder(machine.settings().audit_dir), SystemClock().now()):
        assert run(["project", "limit", "default", "snapshot_mb=1"], machine) == 1
    assert "another Warren does" in capsys.readouterr().err
    assert limits(machine, capsys) == before
