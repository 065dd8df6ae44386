"""What an operator does with the database itself: look whether it is sound, and copy it. No server has to run."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, ColumnElement, Connection, and_, func, or_, select

from warren import durable
from warren.model import limits
from warren.model.errors import AlreadyExists, NotFound, Unavailable
from warren.model.sandbox import Desired, State
from warren.store import migrate, schema
from warren.store.database import Database, plain_url
from warren.store.foreign_errors import translated
from warren.store.sql import SqlStore

_SANDBOXES = schema.sandboxes.c
_LIVE = tuple(state.value for state in State if state.is_live)


@dataclass(frozen=True, slots=True)
class Condition:
    """`version` is the schema's, None in an empty database; `findings` say in words what is wrong."""

    version: str | None
    newest: str
    findings: tuple[str, ...]


async def upgrade(url: str) -> tuple[str | None, str]:
    """Bring the schema up to date; returns the versions before and after. Raises Unavailable for a newer database."""
    store = SqlStore(url)
    before = await version(url) if _exists(plain_url(url)) else None
    await store.open()
    await store.close()
    return before, migrate.newest()


async def version(url: str) -> str | None:
    database = Database(url)
    await database.open()
    try:
        return await database.read(migrate.version)
    finally:
        await database.close()


async def check(url: str) -> Condition:
    """Changes nothing. Raises NotFound when there is no database, Unavailable when it cannot be read at all."""
    _require(plain_url(url))
    database = Database(url)
    await database.open()
    try:
        found, newest = await database.read(migrate.version), migrate.newest()
        findings = await database.read(_damage)
        if found == newest:
            findings += await database.read(_contradictions)
        else:
            findings.append(f"its schema is of version {found}, and this Warren's is {newest}: run warren db upgrade")
        return Condition(found, newest, tuple(findings))
    finally:
        await database.close()


def backup(url: str, target: Path) -> int:
    """A copy of one moment, for root alone; servers go on meanwhile. Returns its size in bytes.

    Raises AlreadyExists rather than overwrite, Unavailable without the tool that copies. Leaves nothing half-made.
    """
    source = plain_url(url)
    _require(source)
    if target.exists():
        raise AlreadyExists(f"cannot back up to {target}: there is such a file; choose another name")
    with _partial(target) as partial:
        if source.get_backend_name() == "sqlite":
            with translated():
                _copy_sqlite(Path(source.database or ""), partial)
        else:
            _dump_postgres(source, partial)
        durable.flush([partial])
        durable.rename(partial, target)
    return target.stat().st_size


def _exists(url: URL) -> bool:
    return url.get_backend_name() != "sqlite" or Path(url.database or "").exists()


def _require(url: URL) -> None:
    if not _exists(url):
        raise NotFound(f"cannot find the database {url.database}; a server makes it when it first starts")


def _damage(connection: Connection) -> list[str]:
    if connection.dialect.name != "sqlite":
        return []
    said = connection.exec_driver_sql("PRAGMA integrity_check(10)").scalars().all()
    orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    findings = [f"its file is damaged: {line}" for line in said if line != "ok"]
    if orphans:
        findings.append(f"{len(orphans)} rows belong to rows that are not there, in {orphans[0][0]} and perhaps others")
    return findings


def _contradictions(connection: Connection) -> list[str]:
    gone, live = _SANDBOXES.state == State.GONE.value, _SANDBOXES.state.in_(_LIVE)
    paused, not_ending = _SANDBOXES.state == State.PAUSED.value, _SANDBOXES.state != State.KILLING.value
    known = select(schema.servers.c.id)
    rules: dict[str, ColumnElement[bool]] = {
        "sandboxes are gone without a reason or a time": and_(
            gone, or_(_SANDBOXES.end_reason.is_(None), _SANDBOXES.ended_at.is_(None))
        ),
        "sandboxes are live and have ended": and_(
            live, or_(_SANDBOXES.ended_at.is_not(None), and_(not_ending, _SANDBOXES.end_reason.is_not(None)))
        ),
        "sandboxes are being killed and wanted at once": and_(
            _SANDBOXES.state == State.KILLING.value, _SANDBOXES.desired != Desired.GONE.value
        ),
        "sandboxes are paused with nothing kept of them": and_(paused, _SANDBOXES.pause_kind.is_(None)),
        "live sandboxes are on a server that nobody knows": and_(live, _SANDBOXES.server_id.not_in(known)),
    }
    findings: list[str] = []
    for said, rule in rules.items():
        rows = select(func.count(), func.min(_SANDBOXES.id)).where(rule)
        number, example = connection.execute(rows).one()
        if number:
            findings.append(f"{number} {said}, {example} for one")
    return findings


@contextmanager
def _partial(target: Path) -> Generator[Path]:
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _copy_sqlite(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(source)) as reading,
        contextlib.closing(sqlite3.connect(target)) as writing,
    ):
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode=DELETE")  # one file; a server that opens it takes WAL again


def _dump_postgres(source: URL, target: Path) -> None:
    if shutil.which("pg_dump") is None:
        raise Unavailable("cannot back up: pg_dump is not installed; apt-get install postgresql-client")
    # The password goes by the environment: everybody can read the arguments of a process.
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PGPASSWORD": source.password or ""}
    address = source.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    command = ["pg_dump", "--format=custom", f"--file={target}", f"--dbname={address}"]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=limits.BACKUP_DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"cannot back up: pg_dump was not done in {limits.BACKUP_DEADLINE_S} s") from None
    if done.returncode:
        raise Unavailable(f"cannot back up: {done.stderr.strip()[:500]}")
