"""Queries and transitions of sandboxes."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from warren.contracts.store import IdempotencyKey, SandboxQuery
from warren.model import limits
from warren.model.errors import AlreadyExists, IdempotencyInFlight, VolumeNotFound
from warren.model.pause import PauseCause, PauseKind
from warren.model.sandbox import TRANSITIONS, Desired, EndReason, Sandbox, State
from warren.store import idempotency, schema
from warren.store.database import insert_new
from warren.store.sandbox_row import from_row, label, network_text, to_row

PRUNE_BATCH = 20
"""Sandboxes forgotten in one transaction. Each can bring 27,000 rows along, and writers wait meanwhile."""

_ROWS = schema.sandboxes
_COLUMNS = schema.sandboxes.c
_LABELS = schema.sandbox_labels.c
_ALIVE = frozenset(state for state in State if state.is_live)
LIVE = tuple(state.value for state in State if state.is_live)
_KILLABLE = frozenset(state for state in State if state.can_kill)

# What every create runs is built once: SQLAlchemy takes longer to build a statement than SQLite to run it.
_ON_DISK = and_(_COLUMNS.state == State.PAUSED.value, _COLUMNS.pause_kind != PauseKind.FROZEN.value)
_HOLDING = (
    select(func.count())
    .select_from(_ROWS)
    .where(_COLUMNS.project_id == bindparam("project"), _COLUMNS.state.in_(LIVE), not_(_ON_DISK))
)
_TEMPLATES = schema.templates.c
_COUNT_SPAWN = (
    update(schema.templates)
    .where(_TEMPLATES.id == bindparam("template"), _TEMPLATES.project_id.is_not(None))
    .values(spawn_count=_TEMPLATES.spawn_count + 1, last_spawned_at=bindparam("at"))
)


def add(connection: Connection, sandbox: Sandbox, quota: int, key: IdempotencyKey | None) -> bool:
    # The lock on the project's row makes looks and inserts one step on Postgres; on SQLite the transaction does.
    lock_project(connection, sandbox.project_id)
    if key is not None:
        held = idempotency.holder(connection, sandbox.project_id, key.key, sandbox.created_at)
        if held is not None and held.sandbox_id != sandbox.id:
            raise IdempotencyInFlight
    has_room = count_holding(connection, sandbox.project_id) < quota
    if has_room:
        _check_volumes(connection, sandbox)
    if has_room and connection.execute(insert_new(connection, _ROWS), to_row(sandbox)).rowcount:
        if key is not None:
            idempotency.hold(connection, sandbox, key)
        labels = [{"pair": label(name, value), "sandbox_id": sandbox.id} for name, value in sandbox.metadata.items()]
        if labels:
            connection.execute(insert(schema.sandbox_labels), labels)
        _count_spawn(connection, sandbox)
        return True
    present = connection.execute(select(_ROWS).where(_COLUMNS.id == sandbox.id)).one_or_none()
    if present is None:
        return False
    if present.project_id == sandbox.project_id and present.created_at == sandbox.created_at:
        return True  # a retry whose first answer got lost
    raise AlreadyExists(f"cannot create the sandbox: the id {sandbox.id} was used before; take a new one")


def _check_volumes(connection: Connection, sandbox: Sandbox) -> None:
    volumes = schema.volumes.c
    for mount in sandbox.volumes:
        ready = select(volumes.id).where(
            volumes.id == mount.volume_id, volumes.project_id == sandbox.project_id, volumes.ready
        )
        if connection.execute(ready).one_or_none() is None:
            raise VolumeNotFound.of(mount.name)


def _count_spawn(connection: Connection, sandbox: Sandbox) -> None:
    """Of built-in templates nobody wants to know, and all projects would queue for their rows."""
    connection.execute(_COUNT_SPAWN, {"template": sandbox.template_id, "at": sandbox.created_at})


def lock_project(connection: Connection, project_id: str) -> None:
    if connection.dialect.name != "sqlite":
        project = schema.projects.c.id
        connection.execute(select(project).where(project == project_id).with_for_update())


def count_holding(connection: Connection, project_id: str) -> int:
    """Sandboxes that hold one of the project's places: see `model.sandbox.Sandbox.holds_place`."""
    return connection.execute(_HOLDING, {"project": project_id}).scalar_one()


def find(connection: Connection, project_id: str, sandbox_id: str) -> Sandbox | None:
    row = (connection.execute(select(_ROWS).where(_COLUMNS.id == sandbox_id, _of_project(project_id)))).one_or_none()
    return None if row is None else from_row(row)


def page(connection: Connection, query: SandboxQuery) -> Sequence[Sandbox]:
    if len(query.metadata) > limits.MAX_METADATA_ENTRIES or not query.states:
        return []  # no sandbox has so many, and no statement should either
    rows = connection.execute(page_statement(query))
    return [from_row(row) for row in rows]


def page_statement(query: SandboxQuery) -> Select[tuple[Any, ...]]:
    """One walk along `sandboxes_by_state` for each state; what they find, a page of each, is put in order."""
    walks = [_walk(query, state) for state in sorted(query.states)]
    if len(walks) == 1:
        return walks[0]
    found = union_all(*(select(walk.subquery()) for walk in walks)).subquery()
    order = (found.c.started_at, found.c.id)
    order = order if query.ascending else tuple(column.desc() for column in order)
    return select(found).order_by(*order).limit(query.limit)


def _walk(query: SandboxQuery, state: State) -> Select[tuple[Any, ...]]:
    """In the order of the list; labels are looked up on the way."""
    position = tuple_(_COLUMNS.started_at, _COLUMNS.id)
    wanted: list[ColumnElement[bool]] = [_COLUMNS.state == state.value, _of_project(query.project_id)]
    if query.template_ids is not None:
        wanted.append(_COLUMNS.template_id.in_(query.template_ids))
    if query.started_after is not None:
        wanted.append(_COLUMNS.started_at >= query.started_after)
    if query.after is not None:
        wanted.append(position > query.after if query.ascending else position < query.after)
    wanted.extend(
        exists().where(_LABELS.pair == label(key, value), _LABELS.sandbox_id == _COLUMNS.id)
        for key, value in query.metadata.items()
    )
    columns = (_COLUMNS.started_at, _COLUMNS.id)
    order = columns if query.ascending else tuple(column.desc() for column in columns)
    return select(_ROWS).where(*wanted).order_by(*order).limit(query.limit)


def count_running(connection: Connection, project_id: str) -> int:
    running = select(func.count()).select_from(_ROWS)
    running = running.where(_COLUMNS.state == State.RUNNING.value, _of_project(project_id))
    return connection.execute(running).scalar_one()


def live(connection: Connection, server_id: str) -> Sequence[Sandbox]:
    alive = select(_ROWS).where(_COLUMNS.server_id == server_id, _COLUMNS.state.in_(LIVE))
    rows = connection.execute(alive.order_by(_COLUMNS.started_at, _COLUMNS.id))
    return [from_row(row) for row in rows]


def overdue(connection: Connection, server_id: str, now: datetime) -> Sequence[Sandbox]:
    idle = and_(_COLUMNS.state == State.PAUSED.value, _COLUMNS.pause_by == PauseCause.IDLE.value)
    expired = and_(or_(_COLUMNS.state == State.RUNNING.value, idle), _COLUMNS.expires_at <= now)
    unwanted = and_(_COLUMNS.state.in_([state.value for state in _KILLABLE]), _COLUMNS.desired == Desired.GONE.value)
    due = select(_ROWS).where(_COLUMNS.server_id == server_id, or_(expired, unwanted))
    return [from_row(row) for row in connection.execute(due)]


def wish_gone(connection: Connection, sandbox_id: str) -> Sandbox | None:
    return change(connection, sandbox_id, _ALIVE, {"desired": Desired.GONE.value})


def move(connection: Connection, sandbox_id: str, expected: frozenset[State], to: State) -> Sandbox | None:
    allowed = frozenset(state for state in expected if to in TRANSITIONS[state])
    return change(connection, sandbox_id, allowed, {"state": to.value})


def mark_running(connection: Connection, sandbox_id: str, started_at: datetime, expires_at: datetime) -> Sandbox | None:
    changes = {"state": State.RUNNING.value, "started_at": started_at, "expires_at": expires_at}
    return change(connection, sandbox_id, frozenset({State.CREATING}), changes)


def mark_killing(
    connection: Connection, sandbox_id: str, reason: EndReason, due_by: datetime | None, if_paused: bool
) -> Sandbox | None:
    changes = {"state": State.KILLING.value, "desired": Desired.GONE.value, "end_reason": reason.value}
    expected = frozenset({State.PAUSED}) if if_paused else _KILLABLE
    return change(connection, sandbox_id, expected, changes, due_by)


def mark_gone(connection: Connection, sandbox_id: str, reason: EndReason, at: datetime) -> bool:
    return _changed(connection, _GONE, sandbox_id, {"end_reason": reason.value, "ended_at": at}) is not None


def set_deadline(connection: Connection, sandbox_id: str, expires_at: datetime, only_extend: bool) -> Sandbox | None:
    if only_extend:
        return _changed(connection, _EXTENDED, sandbox_id, {"expires_at": expires_at})
    return change(connection, sandbox_id, frozenset({State.RUNNING}), {"expires_at": expires_at})


def set_network(connection: Connection, sandbox_id: str, sandbox: Sandbox) -> Sandbox | None:
    changes = {"network": network_text(sandbox.network)}
    return change(connection, sandbox_id, frozenset({State.RUNNING, State.PAUSED}), changes)


def prune(connection: Connection, before: datetime) -> int:
    """Forget one batch; metrics, logs and labels go along by their foreign keys."""
    ended = func.coalesce(_COLUMNS.ended_at, _COLUMNS.expires_at, type_=schema.Instant())
    old = select(_COLUMNS.id).where(_COLUMNS.state == State.GONE.value, ended < before).limit(PRUNE_BATCH)
    return connection.execute(delete(_ROWS).where(_COLUMNS.id.in_(old))).rowcount


def change(
    connection: Connection,
    sandbox_id: str,
    expected: frozenset[State],
    changes: Mapping[str, object],
    due_by: datetime | None = None,
) -> Sandbox | None:
    """Compare and set in one statement; with `due_by` only what was due by then."""
    statement = _setting(expected, tuple(changes))
    if due_by is not None:
        statement = statement.where(_COLUMNS.expires_at <= due_by)
    return _changed(connection, statement, sandbox_id, changes)


def _changed(
    connection: Connection, statement: ReturningUpdate[Any], sandbox_id: str, values: Mapping[str, object]
) -> Sandbox | None:
    named = {f"new_{name}": value for name, value in values.items()}
    row = connection.execute(statement, {"wanted": sandbox_id, **named}).one_or_none()
    return None if row is None else from_row(row)


@cache
def _setting(expected: frozenset[State], columns: tuple[str, ...]) -> ReturningUpdate[Any]:
    """One for each transition of the code."""
    return _changing(expected, {name: _new(name) for name in columns})


def _changing(expected: frozenset[State], values: Mapping[str, Any]) -> ReturningUpdate[Any]:
    states = [state.value for state in expected]
    changed = update(_ROWS).where(_COLUMNS.id == bindparam("wanted"), _COLUMNS.state.in_(states))
    return changed.values(**values).returning(*_COLUMNS)


def _new(column: str) -> BindParameter[Any]:
    return bindparam(f"new_{column}", type_=_COLUMNS[column].type)


_GONE = _changing(
    _ALIVE,
    {
        "state": State.GONE.value,
        "end_reason": func.coalesce(_COLUMNS.end_reason, _new("end_reason")),
        "ended_at": _new("ended_at"),
    },
)
_EXTENDED = _changing(
    frozenset({State.RUNNING}),
    {"expires_at": case((_COLUMNS.expires_at > _new("expires_at"), _COLUMNS.expires_at), else_=_new("expires_at"))},
)


def _of_project(project_id: str) -> ColumnElement[bool]:
    return _COLUMNS.project_id == project_id
