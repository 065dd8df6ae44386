"""Brings the schema up to date, from whatever version the database has; also from an installed wheel."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from warren.model.errors import Unavailable

_ONE_AT_A_TIME = 0x57415252454E
"""Any number of our own: the Postgres lock under which servers that start together migrate one after the other."""


def upgrade(connection: Connection) -> None:
    """Run what is missing, inside the caller's transaction: all of it or nothing."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ONE_AT_A_TIME})")
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise Unavailable("cannot use this database: a newer Warren wrote it; install that version again") from error


def version(connection: Connection) -> str | None:
    """That of the database; None in an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def newest() -> str:
    """The version that this Warren wants."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
