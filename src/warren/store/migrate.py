"""Brings the schema up to date, from whatever version the database has; also from an installed wheel."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from warren.model.errors import Unavailable

_ONE_AT_A_TIME = 0x57415252454E
"""Any number of our own: the Postgres lock under which servers that start together migrate one after the other."""


async def upgrade(connection: AsyncConnection) -> None:
    """Run what is missing, inside the caller's transaction: all of it or nothing."""
    await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ONE_AT_A_TIME})")
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise Unavailable("cannot use this database: a newer Warren wrote it; install that version again") from error
