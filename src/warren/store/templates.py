"""Rows of templates and their names."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, case, delete, exists, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from warren.model.sandbox import Resources
from warren.model.template import Template
from warren.store import schema
from warren.store.database import insert_new

_COLUMNS = schema.templates.c
_NAMES = schema.template_names.c


async def put(connection: AsyncConnection, template: Template) -> None:
    row = _to_row(template)
    inserted = await connection.execute(insert_new(connection, schema.templates).values(row))
    if inserted.rowcount == 0:
        await connection.execute(update(schema.templates).where(_COLUMNS.id == template.id).values(row))
        await connection.execute(delete(schema.template_names).where(_NAMES.template_id == template.id))
    if template.names:
        await connection.execute(
            insert(schema.template_names),
            [{"template_id": template.id, "position": n, "name": name} for n, name in enumerate(template.names)],
        )


async def find(connection: AsyncConnection, project_id: str, name_or_id: str) -> Template | None:
    named = exists().where(_NAMES.template_id == _COLUMNS.id, _NAMES.name == name_or_id)
    by_id = _COLUMNS.id == name_or_id
    own_then_id_then_newest = (_COLUMNS.project_id.is_(None), case((by_id, 0), else_=1), _COLUMNS.created_at.desc())
    best = _visible_to(project_id).where(or_(by_id, named)).order_by(*own_then_id_then_newest).limit(1)
    found = await _with_names(connection, best)
    return found[0] if found else None


async def visible(connection: AsyncConnection, project_id: str) -> Sequence[Template]:
    return await _with_names(connection, _visible_to(project_id).order_by(_COLUMNS.created_at, _COLUMNS.id))


def _visible_to(project_id: str) -> Select[tuple[Any, ...]]:
    return select(schema.templates).where(or_(_COLUMNS.project_id == project_id, _COLUMNS.project_id.is_(None)))


async def _with_names(connection: AsyncConnection, chosen: Select[tuple[Any, ...]]) -> list[Template]:
    """One statement, so that a template replaced meanwhile cannot show its old row with its new names."""
    inner = chosen.subquery()
    outer = select(inner, _NAMES.name, _NAMES.position).outerjoin(_NAMES.name.table, _NAMES.template_id == inner.c.id)
    rows: dict[str, Row[Any]] = {}
    names: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for row in await connection.execute(outer):
        rows[row.id] = row
        if row.name is not None:
            names[row.id][row.position] = row.name
    templates = [_from_row(row, tuple(name for _, name in sorted(names[row.id].items()))) for row in rows.values()]
    return sorted(templates, key=lambda template: (template.created_at, template.id))


def _to_row(template: Template) -> dict[str, object]:
    return {
        "id": template.id,
        "project_id": template.project_id,
        "build_id": template.build_id,
        "digest": template.digest,
        "cpu_count": template.resources.cpu_count,
        "memory_mb": template.resources.memory_mb,
        "disk_mb": template.resources.disk_mb,
        "pids": template.resources.pids,
        "created_at": template.created_at,
        "runtime": template.runtime,
        "default_user": template.default_user,
        "default_workdir": template.default_workdir,
        "public": template.public,
    }


def _from_row(row: Row[Any], names: tuple[str, ...]) -> Template:
    return Template(
        id=row.id,
        project_id=row.project_id,
        names=names,
        build_id=row.build_id,
        digest=row.digest,
        resources=Resources(row.cpu_count, row.memory_mb, row.disk_mb, row.pids),
        created_at=row.created_at,
        runtime=row.runtime,
        default_user=row.default_user,
        default_workdir=row.default_workdir,
        public=row.public,
    )
