import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from warren.audit.chain import Chain
from warren.audit.folder import AuditFolder
from warren.cli.app import run
from warren.cli.machine import LocalAccess, Machine
from warren.model.audit import Event, Kind, Outcome
from warren.settings import Settings

Warren = Callable[..., tuple[int, str, str]]
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> AuditFolder:
    folder = AuditFolder(tmp_path / "audit")
    with Chain(folder, AT) as chain:
        chain.append([
            (AT, Event(Kind.SANDBOX_CREATE, Outcome.ALLOWED, subject="sandbox:i1", project="p1", key="k1")),
            (AT, Event(Kind.SANDBOX_KILL, Outcome.REFUSED, "sandbox_not_found", "sandbox:\x1b[2J", "p2")),
            (AT, Event(Kind.SANDBOX_END, Outcome.OBSERVED, "died", "sandbox:i1")),
        ])  # fmt: skip
        chain.sync()
    return folder


@pytest.fixture
def warren(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Warren:
    def nothing(_: Settings) -> None:
        raise AssertionError

    def no_access(_: Settings) -> LocalAccess:
        raise AssertionError

    machine = Machine({"WARREN_STATE_DIR": str(tmp_path)}, is_root=True, serve=nothing, prepare=no_access)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments, machine)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.mark.usefixtures("folder")
def test_a_whole_log_is_called_so_and_its_head_can_be_noted(warren: Warren) -> None:
    code, out, _ = warren("audit", "verify")
    assert code == 0 and out.startswith("whole: 3 good records in 1 files")
    head = out.splitlines()[-1].removeprefix("head: ")
    assert warren("audit", "verify", "--head", head)[0] == 0
    assert warren("audit", "verify", "--head", "3:" + "0" * 64)[0] == 1
    assert warren("audit", "verify", "--head", "x")[0] == 2


def test_a_change_is_shown_with_its_place(warren: Warren, folder: AuditFolder) -> None:
    file = folder.files()[0]
    file.write_bytes(file.read_bytes().replace(b'"died"', b'"DIED"'))
    code, out, _ = warren("audit", "verify")
    assert code == 1 and f"{file.name}:3: changed" in out and "NOT WHOLE" in out
    found = json.loads(warren("audit", "verify", "--json")[1])
    assert not found["whole"] and (found["faults"][0]["kind"], found["faults"][0]["line"]) == ("changed", 3)


@pytest.mark.usefixtures("folder")
def test_records_are_listed_and_filtered(warren: Warren) -> None:
    def numbers(*filters: str) -> list[int]:
        code, out, _ = warren("audit", "list", "--json", *filters)
        assert code == 0
        return [json.loads(line)["seq"] for line in out.splitlines()]

    assert numbers() == [1, 2, 3]
    assert numbers("--subject", "sandbox:i1") == [1, 3]
    assert numbers("--kind", "sandbox.kill", "--kind", "sandbox.end") == [2, 3]
    assert numbers("--outcome", "refused") == [2]
    assert numbers("--project", "p1", "--key", "k1") == [1]
    assert numbers("--since", "2026-01-03") == []
    assert numbers("--limit", "1") == [3]
    shown = warren("audit", "list")[1]
    assert "\x1b" not in shown and "sandbox_not_found" in shown


def test_a_state_folder_without_a_log_is_told_so(warren: Warren) -> None:
    code, _, said = warren("audit", "verify")
    assert code == 1 and "cannot find an audit log" in said


def test_keys_made_without_a_server_are_written_down(warren: Warren) -> None:
    made = json.loads(warren("key", "create", "first", "--json")[1])
    assert warren("key", "revoke", "first")[0] == 0
    listed = [json.loads(line) for line in warren("audit", "list", "--json")[1].splitlines()]
    assert [(row["kind"], row["subject"], row["via"]) for row in listed] == [
        ("key.create", f"key:{made['id']}", "cli"), ("key.revoke", f"key:{made['id']}", "cli")
    ]  # fmt: skip
    assert warren("audit", "verify")[0] == 0
