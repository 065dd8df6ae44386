"""Rows of templates, their names and tags, and which build they stand for."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from warren.contracts.template_store import TemplateQuery
from warren.model import limits
from warren.model.build import BuildStatus
from warren.model.errors import LimitReached, TemplateInUse
from warren.model.idle import Ladder
from warren.model.snapshot import DEFAULT_TAG
from warren.model.template import Template, TemplateEntry, TemplateTag, as_build, startable
from warren.store import build_row, schema
from warren.store.database import insert_new
from warren.store.sandboxes import LIVE

_COLUMNS = schema.templates.c
_NAMES = schema.template_names.c
_BUILDS = schema.builds.c
_TAGS = schema.template_tags.c
_Text = str | BindParameter[str]


def put(connection: Connection, template: Template) -> None:
    row = {
        "id": template.id,
        "project_id": template.project_id,
        "created_at": template.created_at,
        "updated_at": template.created_at,
        "public": template.public,
    }
    inserted = connection.execute(insert_new(connection, schema.templates).values(row))
    if inserted.rowcount == 0:
        connection.execute(update(schema.templates).where(_COLUMNS.id == template.id).values(row))
        connection.execute(delete(schema.template_names).where(_NAMES.template_id == template.id))
    name(connection, template.id, template.names)
    build = build_row.to_row(as_build(template))
    same = _BUILDS.template_id == template.id, _BUILDS.id == template.build_id
    if connection.execute(insert_new(connection, schema.builds).values(build)).rowcount == 0:
        connection.execute(update(schema.builds).where(*same).values(build))
    point(connection, template.id, [DEFAULT_TAG], template.build_id, template.created_at)


def name(connection: Connection, template_id: str, names: Sequence[str]) -> None:
    rows = [{"template_id": template_id, "position": n, "name": each} for n, each in enumerate(names)]
    if rows:
        connection.execute(insert(schema.template_names), rows)


def find(connection: Connection, project_id: str, name_or_id: str, tag: str) -> Template | None:
    return _startable(connection, _NAMED, {"project": project_id, "name": name_or_id, "tag": tag})


def find_public(connection: Connection, namespace: str, name: str, tag: str) -> Template | None:
    return _startable(connection, _PUBLIC, {"namespace": namespace, "name": name, "tag": tag})


def page(connection: Connection, query: TemplateQuery) -> Sequence[TemplateEntry]:
    wanted = _entries().where(_visible_to(query.project_id))
    if query.after is not None:
        wanted = wanted.where(tuple_(_COLUMNS.created_at, _COLUMNS.id) < query.after)
    newest_first = wanted.order_by(_COLUMNS.created_at.desc(), _COLUMNS.id.desc()).limit(query.limit)
    return _with_names(connection, newest_first)


def find_entry(connection: Connection, project_id: str, name_or_id: str) -> TemplateEntry | None:
    wanted = _entries().where(_named(project_id, name_or_id)).order_by(*_best_first(project_id, name_or_id)).limit(1)
    return next(iter(_with_names(connection, wanted)), None)


def find_public_entry(connection: Connection, namespace: str, name: str) -> TemplateEntry | None:
    return next(iter(_with_names(connection, _entries().where(_public(namespace, name)).limit(1))), None)


def set_public(connection: Connection, template_id: str, public: bool, at: datetime) -> None:
    changed = update(schema.templates).where(_COLUMNS.id == template_id)
    connection.execute(changed.values(public=public, updated_at=at))


def set_ladder(connection: Connection, template_id: str, ladder: Ladder | None, at: datetime) -> None:
    changed = update(schema.templates).where(_COLUMNS.id == template_id)
    connection.execute(changed.values(idle=None if ladder is None else str(ladder), updated_at=at))


def ladders(connection: Connection) -> Mapping[str, Ladder]:
    rows = connection.execute(select(_COLUMNS.id, _COLUMNS.idle).where(_COLUMNS.idle.is_not(None)))
    return {row.id: Ladder.parse(row.idle) for row in rows}


def remove(connection: Connection, template_id: str) -> bool:
    # A create locks this row too, when it counts itself: one of the two sees the other.
    lock(connection, template_id)
    sandboxes = schema.sandboxes.c
    users = select(func.count()).where(sandboxes.template_id == template_id, sandboxes.state.in_(LIVE))
    if count := connection.execute(users).scalar_one():
        raise TemplateInUse(f"cannot delete template '{template_id}': {count} running or paused sandboxes use it")
    gone = connection.execute(delete(schema.templates).where(_COLUMNS.id == template_id))
    return gone.rowcount > 0


def lock(connection: Connection, template_id: str) -> None:
    """On Postgres; whoever takes a build of it as well takes this first."""
    connection.execute(select(_COLUMNS.id).where(_COLUMNS.id == template_id).with_for_update())


def tags(connection: Connection, template_id: str) -> Sequence[TemplateTag]:
    rows = connection.execute(select(schema.template_tags).where(_TAGS.template_id == template_id).order_by(_TAGS.tag))
    return [TemplateTag(row.tag, row.build_id, row.created_at) for row in rows]


def assign(connection: Connection, template_id: str, source: str, wanted: Sequence[str], at: datetime) -> str | None:
    build = select(_TAGS.build_id).where(_TAGS.template_id == template_id, _TAGS.tag == source)
    build_id = connection.execute(build).scalar_one_or_none()
    if build_id is not None:
        point(connection, template_id, wanted, build_id, at)
    return build_id


def point(connection: Connection, template_id: str, wanted: Sequence[str], build_id: str, at: datetime) -> None:
    """Let tags name a build, whatever they named before."""
    connection.execute(delete(schema.template_tags).where(_TAGS.template_id == template_id, _TAGS.tag.in_(wanted)))
    held = select(func.count()).where(_TAGS.template_id == template_id)
    if connection.execute(held).scalar_one() + len(wanted) > limits.TEMPLATE_MAX_TAGS:
        raise LimitReached(f"cannot add tags: a template has at most {limits.TEMPLATE_MAX_TAGS}; remove some")
    rows = [{"template_id": template_id, "tag": tag, "build_id": build_id, "created_at": at} for tag in wanted]
    connection.execute(insert(schema.template_tags), rows)


def untag(connection: Connection, template_id: str, unwanted: Sequence[str]) -> bool:
    gone = delete(schema.template_tags).where(_TAGS.template_id == template_id, _TAGS.tag.in_(unwanted))
    return connection.execute(gone).rowcount > 0


def referenced_images(connection: Connection) -> frozenset[str]:
    sandboxes, snapshots = schema.sandboxes.c, schema.snapshots.c
    tagged = select(_BUILDS.digest).join(schema.template_tags, _is_tagged()).where(_BUILDS.digest.is_not(None))
    live = select(sandboxes.digest).where(sandboxes.state.in_(LIVE))
    rows = connection.execute(tagged.union(live, select(snapshots.digest)))
    return frozenset(row.digest for row in rows)


def tagged_checkpoints() -> Select[tuple[str]]:
    return select(_BUILDS.checkpoint_id).join(schema.template_tags, _is_tagged()).where(
        _BUILDS.checkpoint_id.is_not(None)
    )  # fmt: skip


def _is_tagged() -> ColumnElement[bool]:
    return and_(_TAGS.template_id == _BUILDS.template_id, _TAGS.build_id == _BUILDS.id)


def _visible_to(project_id: _Text) -> ColumnElement[bool]:
    return or_(_COLUMNS.project_id == project_id, _COLUMNS.project_id.is_(None))


def _named(project_id: _Text, name_or_id: _Text) -> ColumnElement[bool]:
    by_id = _COLUMNS.id == name_or_id
    by_name = exists().where(_NAMES.template_id == _COLUMNS.id, _NAMES.name == name_or_id)
    return or_(and_(_visible_to(project_id), or_(by_id, by_name)), and_(_COLUMNS.public.is_(True), by_id))


def _best_first(project_id: _Text, name_or_id: _Text) -> tuple[ColumnElement[Any], ...]:
    """Own, built in, another's; then the one with the id before those with the name; then the newest."""
    whose = case((_COLUMNS.project_id == project_id, 0), (_COLUMNS.project_id.is_(None), 1), else_=2)
    return whose, case((_COLUMNS.id == name_or_id, 0), else_=1), _COLUMNS.created_at.desc()


def _public(namespace: _Text, name: _Text) -> ColumnElement[bool]:
    projects = schema.projects.c
    of_project = exists().where(projects.id == _COLUMNS.project_id, func.lower(projects.name) == namespace)
    by_name = exists().where(_NAMES.template_id == _COLUMNS.id, _NAMES.name == name)
    return and_(_COLUMNS.public.is_(True), of_project, by_name)


def _build_of_tag() -> Select[tuple[Any, ...]]:
    """Templates with the finished build that `:tag` names; `template_created_at` beside the build's columns."""
    columns = _COLUMNS.project_id, _COLUMNS.public, _COLUMNS.created_at.label("template_created_at")
    joined = select(schema.builds, *columns).join(schema.templates, _COLUMNS.id == _BUILDS.template_id)
    return joined.join(schema.template_tags, _is_tagged()).where(
        _TAGS.tag == bindparam("tag"), _BUILDS.digest.is_not(None)
    )


def _beside_names(build: Select[tuple[Any, ...]]) -> Select[tuple[Any, ...]]:
    """One statement, so that a template replaced meanwhile cannot show its old row with its new names."""
    inner = build.subquery()
    outer = select(inner, _NAMES.name).outerjoin(_NAMES.name.table, _NAMES.template_id == inner.c.template_id)
    return outer.order_by(_NAMES.position)


# What every create runs is built once: SQLAlchemy takes longer to build a statement than SQLite to run it.
_PROJECT, _NAME = bindparam("project", type_=schema.Text()), bindparam("name", type_=schema.Text())
_NAMED = _beside_names(_build_of_tag().where(_named(_PROJECT, _NAME)).order_by(*_best_first(_PROJECT, _NAME)).limit(1))
_PUBLIC = _beside_names(_build_of_tag().where(_public(bindparam("namespace", type_=schema.Text()), _NAME)).limit(1))


def _startable(connection: Connection, wanted: Select[tuple[Any, ...]], values: Mapping[str, str]) -> Template | None:
    rows = connection.execute(wanted, values).all()
    if not rows:
        return None
    names = tuple(each.name for each in rows if each.name is not None)
    row, build = rows[0], build_row.from_row(rows[0])
    return startable(build, project_id=row.project_id, names=names, public=row.public, since=row.template_created_at)


_OF_TEMPLATE = ("project_id", "public", "created_at", "updated_at", "spawn_count", "last_spawned_at", "idle")


def _entries() -> Select[tuple[Any, ...]]:
    """Each template beside its last successful build, or its newest; the template's columns begin with `template_`."""
    other = schema.builds.alias()
    finished_first = case((other.c.status == BuildStatus.READY.value, 0), else_=1)
    order = finished_first, other.c.created_at.desc(), other.c.id
    its = select(other.c.id).where(other.c.template_id == _COLUMNS.id).correlate(schema.templates)
    count = its.with_only_columns(func.count()).scalar_subquery().label("build_count")
    columns = [_COLUMNS[each].label(f"template_{each}") for each in _OF_TEMPLATE]
    joined = select(schema.builds, count, *columns).join(schema.templates, _COLUMNS.id == _BUILDS.template_id)
    return joined.where(_BUILDS.id == its.order_by(*order).limit(1).scalar_subquery())


def _with_names(connection: Connection, wanted: Select[tuple[Any, ...]]) -> list[TemplateEntry]:
    inner = wanted.subquery()
    outer = select(inner, _NAMES.name, _NAMES.position)
    outer = outer.outerjoin(_NAMES.name.table, _NAMES.template_id == inner.c.template_id)
    order = inner.c.template_created_at.desc(), inner.c.template_id.desc(), _NAMES.position
    groups: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(outer.order_by(*order)):
        groups[row.template_id].append(row)
    return [_entry(rows[0], (row.name for row in rows)) for rows in groups.values()]


def _entry(row: Row[Any], names: Iterable[str | None]) -> TemplateEntry:
    return TemplateEntry(
        id=row.template_id,
        project_id=row.template_project_id,
        names=tuple(each for each in names if each is not None),
        public=row.template_public,
        created_at=row.template_created_at,
        updated_at=row.template_updated_at,
        build=build_row.from_row(row),
        build_count=row.build_count,
        spawn_count=row.template_spawn_count,
        last_spawned_at=row.template_last_spawned_at,
        ladder=None if row.template_idle is None else Ladder.parse(row.template_idle),
    )
