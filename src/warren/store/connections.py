"""Where functions of a connection run.

SQLite's driver blocks, so they have threads: one that writes, for writers of this process queue fairly in order, and a
few that read, which WAL lets work beside it. A whole transaction is one visit to its thread; an asyncio driver would
make four of each statement. Other processes (the CLI) wait for the write lock up to `LOCK_WAIT_S`. Postgres has a
driver for asyncio, which SQLAlchemy's `run_sync` lets the same functions use.

Errors name no values (`hide_parameters`): among them are logs of sandboxes, and a traceback may go to the server's log.
"""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from warren.model.errors import Unavailable

LOCK_WAIT_S = 5
"""Seconds to wait for a lock that another process or server holds; then the caller is told Busy."""
QUEUE_WAIT_S = 20
"""Seconds to wait for a connection of this process: a burst of 1,000 creates writes for 5 on a small machine."""
STATEMENT_DEADLINE_S = 15
"""Seconds for one statement on Postgres; above LOCK_WAIT_S, so that the exact reason comes first."""
READERS = 4
"""SQLite connections that read; each is a thread."""
POSTGRES_CONNECTIONS = 10
"""Connections to Postgres of one server; its default maximum is 100, for all servers together."""

T = TypeVar("T")


class Connections(Protocol):
    async def run(self, work: Callable[[Connection], T]) -> T:
        """With a connection of its own. Raises TimeoutError when none comes free, and what the driver raises."""
        ...

    async def close(self) -> None: ...


class OnThreads:
    """Of a driver that blocks."""

    def __init__(self, engine: Engine, threads: int) -> None:
        self._engine = engine
        self._free = asyncio.Semaphore(threads)
        self._threads = ThreadPoolExecutor(threads, "store")

    async def run(self, work: Callable[[Connection], T]) -> T:
        async with asyncio.timeout(QUEUE_WAIT_S):
            await self._free.acquire()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._with_connection, work)
        finally:
            self._free.release()

    def _with_connection(self, work: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            return work(connection)

    async def close(self) -> None:
        self._threads.shutdown()
        self._engine.dispose()


class OnTheLoop:
    """Of a driver for asyncio; several may be views of one engine."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def run(self, work: Callable[[Connection], T]) -> T:
        async with self._engine.connect() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        await self._engine.dispose()


async def sqlite_file(url: URL, begin: Callable[[Connection], None]) -> tuple[Connections, Connections]:
    """(reading, writing); `begin` opens a transaction. The file is made, private, if there is none."""
    await asyncio.to_thread(_make_ready, Path(url.database or ""))
    options = {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True, "pool_reset_on_return": None}
    reader, writer = _sqlite_engine(url, READERS, **options), _sqlite_engine(url, 1)
    event.listen(writer, "begin", begin)
    return OnThreads(reader, READERS), OnThreads(writer, 1)


def postgres(url: URL, begin: Callable[[Connection], None]) -> tuple[Connections, Connections]:
    """(reading, writing); `begin` is called where a transaction opens. Raises Unavailable without the driver."""
    try:
        writer = _postgres_engine(url)
    except ModuleNotFoundError as error:
        raise Unavailable("cannot use Postgres: its driver is not installed; pip install asyncpg") from error
    event.listen(writer.sync_engine, "begin", begin)
    return OnTheLoop(writer.execution_options(isolation_level="AUTOCOMMIT")), OnTheLoop(writer)


def _make_private(path: Path) -> None:
    """SQLite gives its -wal and -shm files the mode of the database file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)


def _make_ready(path: Path) -> None:
    """A private file in WAL mode. SQLite does not wait for its lock while it changes that mode, so servers that
    start together take turns here."""
    _make_private(path)
    turn = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)  # held for milliseconds, and let go by the kernel if its holder dies
        with contextlib.closing(sqlite3.connect(path, timeout=LOCK_WAIT_S)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    finally:
        os.close(turn)


def _sqlite_engine(url: URL, connections: int, **options: Any) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,
        connect_args={"timeout": LOCK_WAIT_S, "check_same_thread": False},
        **options,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # else the driver opens transactions of its own, and late
    for pragma in ("foreign_keys=ON", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _postgres_engine(url: URL) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=POSTGRES_CONNECTIONS,
        max_overflow=0,
        pool_timeout=QUEUE_WAIT_S,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={
            "timeout": LOCK_WAIT_S,
            "command_timeout": STATEMENT_DEADLINE_S,
            "server_settings": {"application_name": "warren", "lock_timeout": f"{LOCK_WAIT_S}s"},
        },
    )
