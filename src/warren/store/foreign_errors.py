"""What the databases' own errors mean in Warren's words; the one place that knows both."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from warren.model.errors import BadRequest, Busy, Conflict, NoSpace, Unavailable, WarrenError

_SQLITE_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_SQLITE_FULL = {sqlite3.SQLITE_FULL}
_SQLITE_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRES_BUSY = {"40001", "40P01", "53300", "55P03", "57014"}
_POSTGRES_FULL = {"53100"}
_POSTGRES_NO_TEXT = {"22021", "22P05"}


@contextmanager
def translated() -> Generator[None]:
    """Raise model errors in place of the database's."""
    try:
        yield
    except (PoolTimeoutError, TimeoutError) as error:
        raise Busy("cannot reach the database in time: it is busy; try again") from error
    except IntegrityError as error:
        raise Conflict("cannot store that: it contradicts what is stored; look it up again") from error
    except DBAPIError as error:
        raise meaning(error.orig) from error
    except sqlite3.Error as error:
        raise meaning(error) from error
    except OSError as error:  # asyncpg's connect lets these through
        raise Unavailable(f"cannot reach the database: {error}") from error


def meaning(error: BaseException | None) -> WarrenError:
    """The model error for what a driver raised."""
    code = getattr(error, "sqlite_errorcode", None)
    state = getattr(error, "sqlstate", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary in _SQLITE_BUSY or state in _POSTGRES_BUSY:
        return Busy("cannot reach the database in time: it is locked; try again")
    if primary in _SQLITE_FULL or state in _POSTGRES_FULL:
        return NoSpace()
    if state in _POSTGRES_NO_TEXT:
        return BadRequest("cannot look up or store text with NUL characters; leave them out")
    if primary in _SQLITE_BROKEN:
        return Unavailable("cannot read the database: its file is damaged; restore it from a backup")
    return Unavailable(f"cannot use the database: {error}")
