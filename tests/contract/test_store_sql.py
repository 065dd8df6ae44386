import asyncio
import secrets
import sqlite3
import traceback
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, delete, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.contract.conftest import DIALECTS
from tests.contract.key_store_suite import KeyStoreSuite
from tests.contract.secrets_store_suite import SecretsStoreSuite
from tests.contract.sleep_store_suite import SleepStoreSuite
from tests.contract.store_suite import HOME, MANY, PROJECT, SECOND, T0, StoreSuite, entry, key, metric, sandbox
from tests.contract.template_store_suite import TemplateStoreSuite
from tests.contract.volume_store_suite import VolumeStoreSuite
from tests.postgres_cluster import Cluster
from warren.contracts.store import SandboxQuery, Store
from warren.model.errors import Busy, Unavailable
from warren.model.sandbox import Resources, State
from warren.store import connections, migrate, upkeep
from warren.store.database import Database, with_driver
from warren.store.sandboxes import page_statement
from warren.store.schema import metadata
from warren.store.sql import SqlStore

T = TypeVar("T")


@pytest.fixture(scope="session")
def shared_postgres_url(postgres: Cluster) -> str:
    """Of a database that is emptied before each test: to make one takes much longer."""
    return postgres.create("shared")


@pytest.fixture(params=DIALECTS)
async def store(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Store]:
    is_postgres = request.param == "postgres"
    opened = SqlStore(
        request.getfixturevalue("shared_postgres_url") if is_postgres else f"sqlite:///{tmp_path / 'warren.db'}"
    )
    await opened.open()
    await opened._database.write(_empty)  # pyright: ignore[reportPrivateUsage]
    yield opened
    await opened.close()


def _empty(connection: Connection) -> None:
    for table in reversed(metadata.sorted_tables):
        connection.execute(delete(table))


class TestSqlStore(StoreSuite):
    pass


class TestSqlStoreAsleep(SleepStoreSuite):
    pass


class TestSqlStoreKeys(KeyStoreSuite):
    pass


class TestSqlStoreSecrets(SecretsStoreSuite):
    pass


class TestSqlStoreVolumes(VolumeStoreSuite):
    pass


class TestSqlStoreOfTemplates(TemplateStoreSuite):
    pass


pytestmark = pytest.mark.anyio


async def test_everything_is_there_after_a_restart(url: str) -> None:
    before = SqlStore(url)
    await before.open()
    await before.open()
    await before.add_project(PROJECT)
    await before.add_key(key(1))
    await before.add_sandbox(sandbox(metadata={"a": "b"}), MANY)
    await before.close()
    await before.close()

    after = SqlStore(url)
    await after.open()
    assert await after.key_owner(key(1).digest) == (key(1), PROJECT)
    assert await after.live_sandboxes(HOME.id) == [sandbox(metadata={"a": "b"})]
    await after.close()


async def test_servers_that_start_together_migrate_once(url: str) -> None:
    stores = [SqlStore(url) for _ in range(8)]
    await asyncio.gather(*(store.open() for store in stores))
    await stores[0].add_project(PROJECT)
    assert await stores[3].projects() == [PROJECT]
    await asyncio.gather(*(store.close() for store in stores))


async def test_two_servers_keep_one_quota(url: str) -> None:
    stores = [SqlStore(url) for _ in range(2)]
    for store in stores:
        await store.open()
    await stores[0].add_project(PROJECT)
    added = await asyncio.gather(*(stores[n % 2].add_sandbox(sandbox(n), 7) for n in range(40)))
    assert sum(added) == 7
    for store in stores:
        await store.close()


async def at_once(url: str, work: Callable[[Connection], T]) -> T:
    """One transaction on a database that no store has opened."""
    opened = Database(url)
    await opened.open()
    try:
        return await opened.write(work)
    finally:
        await opened.close()


async def test_the_migrations_make_the_schema(url: str) -> None:
    store = SqlStore(url)
    await store.open()
    await store.close()

    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    assert await at_once(url, differences) == []


async def test_a_template_of_before_builds_is_one_finished_build(url: str) -> None:
    def as_it_was(connection: Connection) -> None:
        config = migrate._config()  # pyright: ignore[reportPrivateUsage]
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        connection.exec_driver_sql(
            "INSERT INTO templates (id, build_id, digest, cpu_count, memory_mb, disk_mb, pids, created_at,"
            " default_user, default_workdir, public) VALUES ('t1', 'b1', 'sha256:1', 2, 512, 64, 9, 1000000, 'root',"
            " '/srv', TRUE)"
        )
        connection.exec_driver_sql("INSERT INTO template_names VALUES ('t1', 0, 'base')")

    await at_once(url, as_it_was)
    store = SqlStore(url)
    await store.open()
    found = await store.find_template(PROJECT.id, "base")
    assert found is not None
    assert (found.id, found.build_id, found.digest, found.names) == ("t1", "b1", "sha256:1", ("base",))
    assert (found.resources, found.default_user, found.default_workdir) == (Resources(2, 512, 64, 9), "root", "/srv")
    entry = await store.template_entry(PROJECT.id, "t1")
    assert entry is not None
    assert entry.created_at == entry.updated_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    await store.close()


async def test_copies_of_before_roots_find_theirs(url: str) -> None:
    def as_it_was(connection: Connection) -> None:
        config = migrate._config()  # pyright: ignore[reportPrivateUsage]
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        connection.exec_driver_sql(
            "INSERT INTO projects (id, name, created_at, max_sandboxes, max_lifetime_s, max_cpu_count, max_memory_mb,"
            " max_disk_mb) VALUES ('p', 'p', 0, 1, 1, 1, 1, 1)"
        )
        for snapshot, template in (("s1", "base"), ("s2", "s1"), ("s3", "s2")):
            connection.exec_driver_sql(
                "INSERT INTO snapshots (id, project_id, checkpoint_id, kind, source_id, template_id, digest, runtime,"
                " default_user, default_workdir, cpu_count, memory_mb, disk_mb, pids, created_at, bytes, tag)"
                f" VALUES ('{snapshot}', 'p', 'c', 'memory', 'i', '{template}', '', '', '', '', 1, 1, 1, 1, 0, 0, '')"
            )
        for number, template in enumerate(("base", "s1", "s3")):
            connection.exec_driver_sql(
                "INSERT INTO sandboxes (id, project_id, template_id, runtime, cpu_count, memory_mb, disk_mb, pids,"
                " state, desired, created_at, started_at, expires_at, timeout_s, secured, network, metadata)"
                f" VALUES ('i{number}', 'p', '{template}', '', 1, 1, 1, 1, '', '', 0, 0, 0, 1, TRUE, '', '')"
            )

    def roots(connection: Connection) -> list[tuple[str, ...]]:
        snapshots = connection.exec_driver_sql("SELECT template_id FROM snapshots")
        rows = connection.exec_driver_sql("SELECT template_id, root_template_id FROM sandboxes ORDER BY id")
        return [*(tuple(row) for row in snapshots), *(tuple(row) for row in rows)]

    await at_once(url, as_it_was)
    assert (await upkeep.upgrade(url))[0] == "0007"
    assert await at_once(url, roots) == [("base",)] * 3 + [("base", "base"), ("s1", "base"), ("s3", "base")]


async def test_cancelled_writers_leave_no_lock_behind(store: Store) -> None:
    await store.add_project(PROJECT)
    for delay in range(60):
        task = asyncio.create_task(store.add_sandbox(sandbox(delay), MANY))
        await asyncio.sleep(delay / 10_000)  # each is cut at another step
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(4):
        assert await store.add_sandbox(sandbox(1000), MANY)
    whole = await store.live_sandboxes(HOME.id)
    assert whole == [row for row in (sandbox(n) for n in [*range(60), 1000]) if row in whole]


async def test_a_closed_store_says_so(url: str) -> None:
    with pytest.raises(Unavailable, match="not open"):
        await SqlStore(url).projects()


async def test_observations_and_decisions_mix(store: Store) -> None:
    """Durable and relaxed transactions share connections; each must find its own setting."""
    await store.add_project(PROJECT)
    for number in range(5):
        await store.add_sandbox(sandbox(number), MANY)
        await store.add_metrics([metric(number, T0)])
        await store.add_logs(sandbox(number).id, [entry(number)])
    assert await store.count_running(PROJECT.id) == 5


async def test_errors_name_no_values(store: Store) -> None:
    """They go to the server's log with their causes."""
    planted = secrets.token_hex(8)

    def broken(connection: Connection) -> None:
        connection.execute(text("SELECT :it FROM nowhere"), {"it": planted})

    with pytest.raises(Unavailable) as failed:
        await store._database.write(broken)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    assert "nowhere" in str(failed.value.__cause__)
    assert planted not in "".join(traceback.format_exception(failed.value))


# --- Postgres ----------------------------------------------------------------------------------------------


async def test_a_database_that_comes_back_is_used_again(postgres: Cluster, postgres_url: str) -> None:
    store = SqlStore(postgres_url)
    await store.open()
    await store.add_project(PROJECT)
    postgres.stop()
    try:
        for _ in range(3):
            with pytest.raises(Unavailable, match="cannot"):
                await store.projects()
            with pytest.raises(Unavailable, match="cannot"):
                await store.add_sandbox(sandbox(), MANY)
    finally:
        postgres.start()
    assert await store.projects() == [PROJECT]
    assert await store.add_sandbox(sandbox(), MANY)
    await store.close()


async def test_a_row_locked_elsewhere_is_busy_and_never_waited_for_without_end(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LOCK_WAIT_S", 1)
    store = SqlStore(postgres_url)
    await store.open()
    await store.add_project(PROJECT)
    engine = create_async_engine(with_driver(postgres_url))
    async with engine.begin() as other:
        await other.exec_driver_sql("SELECT id FROM projects FOR UPDATE")
        with pytest.raises(Busy):
            await store.add_sandbox(sandbox(), MANY)
    assert await store.add_sandbox(sandbox(), MANY)
    await engine.dispose()
    await store.close()


# --- SQLite ------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "warren.db"


@pytest.fixture
async def sqlite_store(path: Path) -> AsyncIterator[SqlStore]:
    store = SqlStore(f"sqlite:///{path}")
    await store.open()
    await store.add_project(PROJECT)
    yield store
    await store.close()


async def test_the_files_are_private(sqlite_store: SqlStore, path: Path) -> None:
    await sqlite_store.add_key(key(1))
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["warren.db", "warren.db-shm", "warren.db-wal"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_a_page_is_one_walk_along_the_index(sqlite_store: SqlStore, path: Path) -> None:
    query = SandboxQuery(PROJECT.id, metadata={"a": "1"}, after=(T0, "i5"), started_after=T0 - SECOND)
    text = str(page_statement(query).compile(compile_kwargs={"literal_binds": True}))
    with sqlite3.connect(path) as connection:
        plan = " | ".join(str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {text}"))
    assert "USING INDEX sandboxes_by_state (state=? AND project_id=?" in plan
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan


async def test_a_lock_held_elsewhere_is_busy(
    sqlite_store: SqlStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(connections, "LOCK_WAIT_S", 0.1)
    impatient = SqlStore(f"sqlite:///{path}")
    try:
        with pytest.raises(Busy, match="cannot"):
            await impatient.open()
        assert await sqlite_store.projects() == [PROJECT]  # readers go on
        other.execute("COMMIT")
        await impatient.open()
        assert await impatient.add_sandbox(sandbox(state=State.CREATING), 1)
    finally:
        other.close()
        await impatient.close()


async def test_a_damaged_file_is_named_so(tmp_path: Path) -> None:
    path = tmp_path / "broken.db"
    path.write_bytes(b"this is no database" * 1000)
    store = SqlStore(f"sqlite:///{path}")
    with pytest.raises(Unavailable, match="damaged"):
        await store.open()
    with pytest.raises(Unavailable, match="not open"):
        await store.projects()


async def test_a_database_of_a_newer_version_is_refused(sqlite_store: SqlStore, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Unavailable, match="newer"):
        await SqlStore(f"sqlite:///{path}").open()


async def test_a_full_disk_is_unavailable(sqlite_store: SqlStore, path: Path) -> None:
    def fill(connection: Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    await sqlite_store._database.write(fill)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(Unavailable, match="full"):
        for number in range(1000):
            await sqlite_store.add_sandbox(sandbox(number, metadata={"k": "v" * 4000}), MANY)
    assert await sqlite_store.projects() == [PROJECT]
