"""Rows of snapshots and the version names they hold."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, tuple_, update

from warren.contracts.store import SnapshotQuery
from warren.model.sandbox import Resources
from warren.model.snapshot import Snapshot, SnapshotKind
from warren.store import schema
from warren.store.sandbox_row import mounts_text, parse_mounts

_ROWS = schema.snapshots
_COLUMNS = schema.snapshots.c


def add(connection: Connection, snapshot: Snapshot) -> None:
    if snapshot.name is not None:
        held = _COLUMNS.project_id == snapshot.project_id, _COLUMNS.name == snapshot.name, _COLUMNS.tag == snapshot.tag
        connection.execute(update(_ROWS).where(*held).values(name=None))
    connection.execute(insert(_ROWS).values(_to_row(snapshot)))


def find(connection: Connection, project_id: str, snapshot_id: str) -> Snapshot | None:
    wanted = select(_ROWS).where(_COLUMNS.project_id == project_id, _COLUMNS.id == snapshot_id)
    row = connection.execute(wanted).one_or_none()
    return None if row is None else _from_row(row)


def find_named(connection: Connection, project_id: str, name: str, tag: str) -> Snapshot | None:
    wanted = select(_ROWS).where(_COLUMNS.project_id == project_id, _COLUMNS.name == name, _COLUMNS.tag == tag)
    row = connection.execute(wanted).one_or_none()
    return None if row is None else _from_row(row)


def page(connection: Connection, query: SnapshotQuery) -> Sequence[Snapshot]:
    wanted = select(_ROWS).where(_COLUMNS.project_id == query.project_id)
    if query.source_id is not None:
        wanted = wanted.where(_COLUMNS.source_id == query.source_id)
    if query.name is not None:
        wanted = wanted.where(_COLUMNS.name == query.name)
    if query.tag is not None:
        wanted = wanted.where(_COLUMNS.tag == query.tag)
    if query.after is not None:
        wanted = wanted.where(tuple_(_COLUMNS.created_at, _COLUMNS.id) < query.after)
    newest_first = wanted.order_by(_COLUMNS.created_at.desc(), _COLUMNS.id.desc()).limit(query.limit)
    return [_from_row(row) for row in connection.execute(newest_first)]


def remove(connection: Connection, project_id: str, snapshot_id: str) -> bool:
    gone = delete(_ROWS).where(_COLUMNS.project_id == project_id, _COLUMNS.id == snapshot_id)
    return connection.execute(gone).rowcount > 0


def _to_row(snapshot: Snapshot) -> dict[str, object]:
    return {
        "id": snapshot.id,
        "project_id": snapshot.project_id,
        "checkpoint_id": snapshot.checkpoint_id,
        "kind": snapshot.kind.value,
        "source_id": snapshot.source_id,
        "template_id": snapshot.template_id,
        "digest": snapshot.digest,
        "default_user": snapshot.default_user,
        "default_workdir": snapshot.default_workdir,
        "template_envs": json.dumps(dict(snapshot.template_envs)),
        "volumes": mounts_text(snapshot.volumes),
        "runtime": snapshot.runtime,
        "cpu_count": snapshot.resources.cpu_count,
        "memory_mb": snapshot.resources.memory_mb,
        "disk_mb": snapshot.resources.disk_mb,
        "pids": snapshot.resources.pids,
        "created_at": snapshot.created_at,
        "bytes": snapshot.bytes,
        "name": snapshot.name,
        "tag": snapshot.tag,
    }


def _from_row(row: Row[Any]) -> Snapshot:
    return Snapshot(
        id=row.id,
        project_id=row.project_id,
        checkpoint_id=row.checkpoint_id,
        kind=SnapshotKind(row.kind),
        source_id=row.source_id,
        template_id=row.template_id,
        digest=row.digest,
        default_user=row.default_user,
        default_workdir=row.default_workdir,
        template_envs=json.loads(row.template_envs),
        volumes=parse_mounts(row.volumes),
        runtime=row.runtime,
        resources=Resources(row.cpu_count, row.memory_mb, row.disk_mb, row.pids),
        created_at=row.created_at,
        bytes=row.bytes,
        name=row.name,
        tag=row.tag,
    )
