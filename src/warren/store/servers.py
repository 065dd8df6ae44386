"""Rows of servers, and what becomes of the sandboxes of one that is away."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, and_, or_, select, update

from warren.model.sandbox import Desired, EndReason, Sandbox, State
from warren.model.server import Server
from warren.store import schema
from warren.store.database import insert_new
from warren.store.sandbox_row import from_row

_COLUMNS = schema.servers.c
_SANDBOXES = schema.sandboxes.c
_ASLEEP = tuple(state.value for state in State if state.is_asleep)
"""These have no deadline: their server finds them on its disk when it is back."""
_LIVE = tuple(state.value for state in State if state.is_live)


def register(connection: Connection, server: Server) -> None:
    row = {"id": server.id, "name": server.name, "seen_at": server.seen_at}
    inserted = connection.execute(insert_new(connection, schema.servers).values(row))
    if inserted.rowcount == 0:
        connection.execute(update(schema.servers).where(_COLUMNS.id == server.id).values(row))
    connection.execute(update(schema.sandboxes).where(_SANDBOXES.server_id == "").values(server_id=server.id))


def beat(connection: Connection, server_id: str, at: datetime) -> None:
    connection.execute(update(schema.servers).where(_COLUMNS.id == server_id).values(seen_at=at))


def everyone(connection: Connection) -> Sequence[Server]:
    rows = connection.execute(select(schema.servers).order_by(_COLUMNS.name, _COLUMNS.id))
    return [Server(row.id, row.name, row.seen_at) for row in rows]


def home(connection: Connection, sandbox_id: str) -> Server | None:
    having = select(schema.servers).join(schema.sandboxes, _SANDBOXES.server_id == _COLUMNS.id)
    found = having.where(_SANDBOXES.id == sandbox_id, _SANDBOXES.state.in_(_LIVE))
    row = connection.execute(found).one_or_none()
    return None if row is None else Server(row.id, row.name, row.seen_at)


def give_up(connection: Connection, server: Server, now: datetime) -> Sequence[Sandbox]:
    # The lock makes a heartbeat that comes at this moment wait on Postgres; on SQLite the transaction does.
    silent = select(_COLUMNS.id).where(_COLUMNS.id == server.id, _COLUMNS.seen_at == server.seen_at)
    if connection.execute(silent.with_for_update()).one_or_none() is None:
        return []
    # One that would fall asleep at its deadline waits for its server: what it holds is to be kept.
    mortal = and_(_SANDBOXES.state.not_in(_ASLEEP), _SANDBOXES.auto_pause.is_(False))
    expired = and_(mortal, _SANDBOXES.expires_at <= now)
    due = or_(expired, _SANDBOXES.desired == Desired.GONE.value)
    lost = update(schema.sandboxes).where(_SANDBOXES.server_id == server.id, _SANDBOXES.state.in_(_LIVE), due)
    changes = {"state": State.GONE.value, "end_reason": EndReason.LOST.value, "ended_at": now}
    return [from_row(row) for row in connection.execute(lost.values(**changes).returning(*_SANDBOXES))]
