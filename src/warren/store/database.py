"""Connections and transactions; where SQLite and Postgres differ, the difference is here.

Durability, by what a row is worth after a power cut:
* `write`: keys, projects, templates survive it once they are acknowledged (SQLite synchronous=FULL).
* `track`: the life of a sandbox. An SQLite file is on the machine whose sandboxes it describes, and they end with the
  power too, so it does not wait for that disk (6 ms on a small machine, twice per create). On Postgres it waits: there
  the sandboxes may be elsewhere. A crash of the server alone loses none of it.
* `note`: metrics, logs, last use of a key. Waits for no disk.
A power cut never costs the consistency of the file.

Locks: a transaction of SQLite has the whole file to itself (BEGIN IMMEDIATE). On Postgres it has what it locks, so
whatever reads first and then decides takes the row that stands for the question with FOR UPDATE: the project for its
quota, the sandbox for the numbers of its log, the server for its heartbeat. SQLAlchemy leaves that out for SQLite.
Changes of state are one UPDATE with the expected state in its WHERE, which is the same in both.

Work is an ordinary function of a connection; `store.connections` has a thread for it on SQLite, and none on Postgres.
"""

import asyncio
import enum
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import URL, Connection, Table, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError

from warren.model.errors import BadRequest, Unavailable
from warren.store.connections import Connections, postgres, sqlite_file
from warren.store.foreign_errors import translated

P = ParamSpec("P")
T = TypeVar("T")

_WORTH = "warren_worth"
"""The execution option that carries a transaction's `_Worth` to where it begins."""

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


class _Worth(enum.Enum):
    ALWAYS = enum.auto()
    WHILE_MACHINE_RUNS = enum.auto()
    LITTLE = enum.auto()


class Database:
    def __init__(self, url: str) -> None:
        self._working: set[asyncio.Task[Any]] = set()
        self._url = with_driver(url)
        self._reader: Connections | None = None
        self._writer: Connections | None = None

    @property
    def is_open(self) -> bool:
        return self._writer is not None

    async def open(self) -> None:
        if self._url.get_backend_name() == "sqlite":
            with translated():
                self._reader, self._writer = await sqlite_file(self._url, _begin_sqlite_write)
        else:
            self._reader, self._writer = postgres(self._url, _begin_postgres_write)

    async def close(self) -> None:
        """Wait for the transactions under way, then let go of the connections."""
        opened = [connections for connections in (self._reader, self._writer) if connections is not None]
        self._reader = self._writer = None
        if self._working:
            await asyncio.wait(self._working)
        for connections in opened:
            await connections.close()

    async def read(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work`, made of single SELECTs: each sees one moment, none opens a transaction."""
        return await self._finished(self._reader, lambda connection: work(connection, *args, **kwargs))

    async def write(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` as one transaction that survives a power cut once it is answered."""
        return await self._transaction(_Worth.ALWAYS, work, *args, **kwargs)

    async def track(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Like `write`, for what is true of processes of this machine."""
        return await self._transaction(_Worth.WHILE_MACHINE_RUNS, work, *args, **kwargs)

    async def note(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Like `write`, for observations."""
        return await self._transaction(_Worth.LITTLE, work, *args, **kwargs)

    async def _transaction(
        self,
        worth: "_Worth",
        work: Callable[Concatenate[Connection, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        def writing(connection: Connection) -> T:
            connection.execution_options(**{_WORTH: worth})
            with connection.begin():
                return work(connection, *args, **kwargs)

        return await self._finished(self._writer, writing)

    async def _finished(self, connections: Connections | None, work: Callable[[Connection], T]) -> T:
        """Let the work reach its end although the caller is cancelled: what is cut in the middle of a statement can
        keep the write lock. It takes milliseconds, and each of its waits has a deadline."""
        if connections is None:
            raise Unavailable("cannot use the store: it is not open")
        # Its parent is this call, which ends after it also when cancelled; a TaskGroup would cancel it.
        task = asyncio.create_task(connections.run(work))  # noqa: TID251
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        with translated():
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                await asyncio.wait([task])
                raise


def insert_new(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """INSERT that leaves a row alone that is already there."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()


def plain_url(url: str) -> URL:
    """Without a driver, for what is not SQLAlchemy."""
    parsed = with_driver(url)
    return parsed.set(drivername=parsed.get_backend_name())


def with_driver(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        # Without the value: there may be a password in it.
        raise BadRequest("cannot read the database's URL; write postgresql://user:password@host/database") from None
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None:
        raise BadRequest(f"cannot use a {parsed.get_backend_name()} database: give a sqlite or postgresql URL")
    return parsed.set(drivername=driver)


def _begin_sqlite_write(connection: Connection) -> None:
    """IMMEDIATE: a transaction that takes the write lock only at its first write can fail after it has read."""
    level = "FULL" if connection.get_execution_options().get(_WORTH) is _Worth.ALWAYS else "NORMAL"
    if connection.info.get("synchronous", "FULL") != level:
        connection.exec_driver_sql(f"PRAGMA synchronous={level}")
        connection.info["synchronous"] = level
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_postgres_write(connection: Connection) -> None:
    if connection.get_execution_options().get(_WORTH) is _Worth.LITTLE:
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
