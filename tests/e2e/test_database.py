"""The database under a running server: looked at, copied, locked by somebody else, and put back from a copy."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from e2b import Sandbox

from tests.e2e.local_server import LocalServer


def test_a_database_in_use_is_sound_and_current(server: LocalServer) -> None:
    checked = server.run("db", "check", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    found = json.loads(checked.stdout)
    assert (found["ok"], found["findings"]) == (True, [])
    upgraded = json.loads(server.run("db", "upgrade", "--json").stdout)
    assert upgraded == {"from": found["newest"], "to": found["newest"]}


def test_a_backup_is_taken_from_a_running_server_and_restored(server: LocalServer, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with Sandbox.create(timeout=120) as sandbox:
        made = server.run("db", "backup", str(copy), "--json")
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout) == {"file": str(copy), "bytes": copy.stat().st_size}
        assert copy.stat().st_mode & 0o777 == 0o600
        again = server.run("db", "backup", str(copy))
        assert (again.returncode, again.stderr.startswith("warren: cannot back up")) == (1, True)
        with closing(sqlite3.connect(copy)) as rows:
            assert rows.execute("SELECT state FROM sandboxes WHERE id = ?", [sandbox.sandbox_id]).fetchall() == [
                ("running",)
            ]
    restored = LocalServer(tmp_path / "restored", pool_slots=1)
    restored.state.mkdir(parents=True)
    shutil.copy(copy, restored.state / "warren.db")
    shutil.copy(server.state / "local-key", restored.state)
    with restored:
        listed = httpx.get(f"{restored.api_url}/api-keys", headers={"X-API-KEY": server.api_key})
    assert listed.status_code == 200


@pytest.mark.threat("E5")
def test_a_database_locked_by_somebody_else_is_busy_and_no_more(server: LocalServer) -> None:
    with closing(sqlite3.connect(server.state / "warren.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = httpx.post(
            f"{server.api_url}/v2/sandboxes",
            headers={"X-API-KEY": server.api_key},
            json={"templateID": "base", "timeout": 60},
            timeout=120,
        )
        other.execute("ROLLBACK")
    assert (answer.status_code, answer.json()["error_code"]) == (503, "busy"), answer.text
    with Sandbox.create(timeout=60) as sandbox:
        assert sandbox.is_running()
