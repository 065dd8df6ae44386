"""Rows of builds and of their logs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, insert, not_, or_, select, tuple_, update

from warren.contracts.template_store import BuildQuery, LineQuery
from warren.model import limits
from warren.model.build import Build, BuildLine, BuildStatus, Built, LogLevel
from warren.model.errors import LimitReached
from warren.store import build_row, schema, templates
from warren.store.sandboxes import lock_project

_COLUMNS = schema.builds.c
_LINES = schema.build_lines.c
_TEMPLATES = schema.templates.c
_UNFINISHED = (BuildStatus.WAITING.value, BuildStatus.BUILDING.value)
_SEVERITY = {level: rank for rank, level in enumerate(LogLevel)}
_LEVEL = tuple(LogLevel)


def request(connection: Connection, project_id: str, name: str, build: Build) -> Build:
    # The lock on the project's row makes look-up, counts and inserts one step on Postgres.
    lock_project(connection, project_id)
    template_id = _template_named(connection, project_id, name)
    own = select(_TEMPLATES.id).where(_TEMPLATES.project_id == project_id)
    open_ = select(func.count()).where(_COLUMNS.template_id.in_(own), _COLUMNS.status.in_(_UNFINISHED))
    if connection.execute(open_).scalar_one() >= limits.PROJECT_MAX_BUILDS:
        raise LimitReached(
            f"cannot register another build: {limits.PROJECT_MAX_BUILDS} of the project wait or are at work (builds); "
            "wait for one, or cancel it"
        )
    if template_id is None:
        template_id = build.template_id
        _add_template(connection, project_id, name, build)
    made = build_row.to_row(build) | {"template_id": template_id}
    row = connection.execute(insert(schema.builds).values(made).returning(*_COLUMNS)).one()
    touched = update(schema.templates).where(_TEMPLATES.id == template_id)
    connection.execute(touched.values(updated_at=build.created_at))
    _forget_old(connection, template_id)
    return build_row.from_row(row)


def _template_named(connection: Connection, project_id: str, name: str) -> str | None:
    names = schema.template_names.c
    by_name = exists().where(names.template_id == _TEMPLATES.id, names.name == name)
    by_id = _TEMPLATES.id == name
    wanted = select(_TEMPLATES.id).where(_TEMPLATES.project_id == project_id, or_(by_id, by_name))
    return connection.execute(wanted.order_by(by_id.desc()).limit(1)).scalar_one_or_none()


def _add_template(connection: Connection, project_id: str, name: str, build: Build) -> None:
    held = select(func.count()).where(_TEMPLATES.project_id == project_id)
    if connection.execute(held).scalar_one() >= limits.PROJECT_MAX_TEMPLATES:
        raise LimitReached(
            f"cannot add another template: the project's limit is {limits.PROJECT_MAX_TEMPLATES} (templates)"
        )
    row = {"id": build.template_id, "project_id": project_id, "created_at": build.created_at, "public": False}
    connection.execute(insert(schema.templates).values(row | {"updated_at": build.created_at}))
    templates.name(connection, build.template_id, [name])


def _forget_old(connection: Connection, template_id: str) -> None:
    tags = schema.template_tags.c
    tagged = exists().where(tags.template_id == _COLUMNS.template_id, tags.build_id == _COLUMNS.id)
    spare = _COLUMNS.template_id == template_id, _COLUMNS.status.not_in(_UNFINISHED), not_(tagged)
    newest = select(_COLUMNS.id).where(*spare).order_by(_COLUMNS.created_at.desc(), _COLUMNS.id.desc())
    kept = newest.limit(limits.TEMPLATE_BUILDS_KEPT).subquery()
    connection.execute(delete(schema.builds).where(*spare, _COLUMNS.id.not_in(select(kept.c.id))))


def find(connection: Connection, template_id: str, build_id: str) -> Build | None:
    row = connection.execute(select(schema.builds).where(_is(template_id, build_id))).one_or_none()
    return None if row is None else build_row.from_row(row)


def page(connection: Connection, query: BuildQuery) -> Sequence[Build]:
    wanted = select(schema.builds).where(_COLUMNS.template_id == query.template_id)
    if query.after is not None:
        wanted = wanted.where(tuple_(_COLUMNS.created_at, _COLUMNS.id) < query.after)
    newest_first = wanted.order_by(_COLUMNS.created_at.desc(), _COLUMNS.id.desc()).limit(query.limit)
    return [build_row.from_row(row) for row in connection.execute(newest_first)]


def claim(connection: Connection, template_id: str, build_id: str, at: datetime) -> Build | None:
    changes = {"status": BuildStatus.BUILDING.value, "updated_at": at}
    return _change(connection, _is(template_id, build_id), (BuildStatus.WAITING.value,), changes)


def finish(connection: Connection, template_id: str, build_id: str, built: Built, at: datetime) -> bool:
    templates.lock(connection, template_id)
    changes = {"status": BuildStatus.READY.value, "updated_at": at, "finished_at": at, **build_row.built_columns(built)}
    done = _change(connection, _is(template_id, build_id), (BuildStatus.BUILDING.value,), changes)
    if done is None:
        return False
    templates.point(connection, template_id, done.tags, build_id, at)
    connection.execute(update(schema.templates).where(_TEMPLATES.id == template_id).values(updated_at=at))
    return True


def fail(
    connection: Connection, template_id: str, build_id: str, *, reason: str, step: str | None, at: datetime
) -> bool:
    changes = {
        "status": BuildStatus.ERROR.value,
        "updated_at": at,
        "finished_at": at,
        "reason": reason,
        "reason_step": step,
    }
    return _change(connection, _is(template_id, build_id), _UNFINISHED, changes) is not None


def unfinished(connection: Connection, server_id: str) -> Sequence[Build]:
    wanted = select(schema.builds).where(_COLUMNS.server_id == server_id, _COLUMNS.status.in_(_UNFINISHED))
    rows = connection.execute(wanted.order_by(_COLUMNS.created_at, _COLUMNS.id))
    return [build_row.from_row(row) for row in rows]


def add_lines(connection: Connection, template_id: str, build_id: str, first: int, lines: Sequence[BuildLine]) -> bool:
    at_work = select(_COLUMNS.id).where(_is(template_id, build_id), _COLUMNS.status == BuildStatus.BUILDING.value)
    if connection.execute(at_work.with_for_update()).one_or_none() is None:
        return False
    rows = [
        {
            "template_id": template_id,
            "build_id": build_id,
            "number": number,
            "at": line.at,
            "severity": _SEVERITY[line.level],
            "step": line.step,
            "message": line.message[: limits.BUILD_LINE_MAX],
        }
        for number, line in enumerate(lines, first)
    ]
    if rows:
        connection.execute(insert(schema.build_lines), rows)
    return True


def lines(connection: Connection, template_id: str, build_id: str, query: LineQuery) -> Sequence[BuildLine]:
    wanted = select(schema.build_lines).where(_LINES.template_id == template_id, _LINES.build_id == build_id)
    if query.level is not None:
        wanted = wanted.where(_LINES.severity >= _SEVERITY[query.level])
    if query.start is not None:
        wanted = wanted.where(_LINES.at >= query.start if query.ascending else _LINES.at <= query.start)
    wanted = wanted.order_by(_LINES.number if query.ascending else _LINES.number.desc())
    rows = connection.execute(wanted.offset(query.offset).limit(query.limit))
    return [BuildLine(row.at, _LEVEL[int(row.severity)], row.message, row.step) for row in rows]


def _change(
    connection: Connection, which: ColumnElement[bool], expected: Sequence[str], changes: dict[str, Any]
) -> Build | None:
    """Compare and set in one statement."""
    changed = update(schema.builds).where(which, _COLUMNS.status.in_(expected)).values(**changes)
    row = connection.execute(changed.returning(*_COLUMNS)).one_or_none()
    return None if row is None else build_row.from_row(row)


def _is(template_id: str, build_id: str) -> ColumnElement[bool]:
    return and_(_COLUMNS.template_id == template_id, _COLUMNS.id == build_id)
