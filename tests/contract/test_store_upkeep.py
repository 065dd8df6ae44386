"""Looking after the database, with and without a server at work on it."""

import sqlite3
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import Connection, update

from tests.contract.store_suite import HOME, MANY, PROJECT, key, sandbox
from tests.postgres_cluster import Cluster
from warren.model.errors import AlreadyExists, BadRequest, NotFound, Unavailable
from warren.model.sandbox import EndReason, State
from warren.store import migrate, upkeep
from warren.store.schema import sandboxes
from warren.store.sql import SqlStore

pytestmark = pytest.mark.anyio

NEWEST = migrate.newest()


async def opened(url: str) -> SqlStore:
    store = SqlStore(url)
    await store.open()
    await store.add_project(PROJECT)
    await store.register_server(HOME)
    await store.add_key(key(1))
    await store.add_sandbox(sandbox(), MANY)
    return store


async def test_a_sound_database_is_called_so_while_it_is_in_use(url: str) -> None:
    store = await opened(url)
    assert await upkeep.check(url) == upkeep.Condition(NEWEST, NEWEST, ())
    await store.close()


async def test_contradictions_are_counted_and_named(url: str) -> None:
    store = await opened(url)
    await store.add_sandbox(sandbox(1, state=State.GONE), MANY)
    await store.add_sandbox(sandbox(2, server_id="nobody"), MANY)
    await store.add_sandbox(sandbox(3, state=State.KILLING), MANY)
    await store.add_sandbox(sandbox(4, state=State.PAUSED), MANY)

    def ended(connection: Connection) -> None:
        connection.execute(update(sandboxes).where(sandboxes.c.id == sandbox().id).values(end_reason="died"))

    await store._database.write(ended)  # pyright: ignore[reportPrivateUsage]
    found = (await upkeep.check(url)).findings
    assert len(found) == 5
    for said, number in (
        ("gone without", 1), ("on a server that nobody knows", 2), ("killed and wanted", 3), ("nothing kept", 4),
        ("live and have ended", 0),
    ):  # fmt: skip
        assert [sandbox(number).id in one for one in found if said in one] == [True]
    await store.close()


async def test_upgrade_says_from_where_to_where(url: str) -> None:
    assert await upkeep.upgrade(url) == (None, NEWEST)
    assert await upkeep.upgrade(url) == (NEWEST, NEWEST)


async def test_a_database_of_another_version_is_told_apart(url: str) -> None:
    store = await opened(url)

    def age(connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")

    await store._database.write(age)  # pyright: ignore[reportPrivateUsage]
    await store.close()
    condition = await upkeep.check(url)
    assert condition.version == "9999"
    assert "warren db upgrade" in condition.findings[0]
    with pytest.raises(Unavailable, match="a newer Warren wrote it"):
        await upkeep.upgrade(url)


async def test_an_unreadable_url_is_refused_without_repeating_it() -> None:
    with pytest.raises(BadRequest, match="cannot read the database's URL") as refused:
        await upkeep.check("pass:word@nowhere")
    assert "pass" not in refused.value.message.replace("user:password@host", "")


async def test_sqlite_is_copied_while_a_server_writes(tmp_path: Path) -> None:
    store = await opened(f"sqlite:///{tmp_path / 'warren.db'}")
    target = tmp_path / "copy.db"
    assert upkeep.backup(f"sqlite:///{tmp_path / 'warren.db'}", target) == target.stat().st_size > 0
    assert target.stat().st_mode & 0o777 == 0o600
    await store.mark_gone(sandbox().id, EndReason.KILLED, sandbox().expires_at)
    await store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "warren.db"]
    assert (await upkeep.check(f"sqlite:///{target}")).findings == ()
    copy = SqlStore(f"sqlite:///{target}")
    await copy.open()
    assert await copy.key_owner(key(1).digest) == (key(1), PROJECT)
    assert await copy.live_sandboxes(HOME.id) == [sandbox()]
    await copy.close()


async def test_a_backup_overwrites_nothing_and_needs_a_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'warren.db'}"
    with pytest.raises(NotFound, match="cannot find the database"):
        upkeep.backup(url, tmp_path / "copy.db")
    with pytest.raises(NotFound, match="cannot find the database"):
        await upkeep.check(url)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "copy.db").write_text("precious")
    (tmp_path / "warren.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(AlreadyExists, match="cannot back up"):
        upkeep.backup(url, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"
    with pytest.raises(Unavailable, match="damaged"):
        upkeep.backup(url, tmp_path / "other.db")
    assert not [path for path in tmp_path.iterdir() if "other" in path.name]


async def test_damage_inside_a_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "warren.db"
    store = await opened(f"sqlite:///{path}")
    await store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("DELETE FROM projects")
    found = (await upkeep.check(f"sqlite:///{path}")).findings
    assert any("belong to rows that are not there" in one for one in found)


async def test_postgres_is_dumped_and_restored(postgres: Cluster, postgres_url: str, tmp_path: Path) -> None:
    store = await opened(postgres_url)
    target = tmp_path / "warren.dump"
    assert upkeep.backup(postgres_url, target) == target.stat().st_size > 0
    assert target.stat().st_mode & 0o777 == 0o600
    await store.close()
    name = "restored"
    restored_url = postgres.create(name)
    subprocess.run(["pg_restore", f"--dbname={restored_url}", str(target)], check=True, timeout=60)
    restored = SqlStore(restored_url)
    await restored.open()
    assert await restored.live_sandboxes(HOME.id) == [sandbox()]
    await restored.close()
    postgres.drop(name)


async def test_without_pg_dump_the_answer_says_what_to_install(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable, match="apt-get install postgresql-client"):
        upkeep.backup(postgres_url, tmp_path / "warren.dump")
    assert list(tmp_path.iterdir()) == []
