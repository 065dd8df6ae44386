"""What the tests count as left behind of checkpoints: whole ones that nothing stands on, and no others."""

import json
import sqlite3
from pathlib import Path

import pytest

from tests import leaks
from warren.store.sql import SqlStore

pytestmark = pytest.mark.anyio
NAMES = [letter * 21 for letter in "abcd"]


async def test_a_whole_checkpoint_that_nothing_stands_on_is_a_leak(tmp_path: Path) -> None:
    folder = tmp_path / "engine" / "checkpoints"
    for name in NAMES:
        (folder / f"c{name[1:]}").mkdir(parents=True)
    lost, built, kept, paused = sorted(path.name for path in folder.iterdir())
    assert left(tmp_path) == [lost, built, kept, paused]
    (tmp_path / "build-cache").mkdir()
    (tmp_path / "build-cache" / "key.files").write_text(json.dumps({"value": built, "bytes": 1}))
    store = SqlStore(f"sqlite:///{tmp_path / 'warren.db'}")
    await store.open()
    await store.close()
    assert left(tmp_path) == [lost, kept, paused]
    with sqlite3.connect(tmp_path / "warren.db") as database:
        insert(database, "snapshots", checkpoint_id=kept)
        insert(database, "sandboxes", pause_checkpoint=paused, state="paused")
        insert(database, "sandboxes", pause_checkpoint=lost, state="gone")
    database.close()
    assert left(tmp_path) == [lost]


def left(state_dir: Path) -> list[str]:
    return [Path(path).name for path in sorted(leaks.snapshot("no-bridge", state_dir)["checkpoints"])]


def insert(database: sqlite3.Connection, table: str, **values: str) -> None:
    """A row of which nothing else matters."""
    database.execute("PRAGMA foreign_keys=OFF")
    columns = database.execute(f"PRAGMA table_info({table})").fetchall()
    names = [name for _, name, _, is_needed, default, is_key in columns if (is_needed and default is None) or is_key]
    row = {**{name: f"{table}-{name}-{len(values)}-{values}" for name in names}, **values}
    marks = ", ".join("?" * len(row))
    database.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
