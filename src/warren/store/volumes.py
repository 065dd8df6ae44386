"""Rows of volumes, and who has them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from warren.model.errors import AlreadyExists, LimitReached
from warren.model.project import ProjectLimits
from warren.model.volume import Volume
from warren.store import schema
from warren.store.sandbox_row import parse_mounts
from warren.store.sandboxes import LIVE, lock_project

_ROWS = schema.volumes
_COLUMNS = schema.volumes.c
_SANDBOXES = schema.sandboxes.c


def add(connection: Connection, volume: Volume, quota: ProjectLimits) -> None:
    lock_project(connection, volume.project_id)
    own = _COLUMNS.project_id == volume.project_id
    same = connection.execute(select(_COLUMNS.id).where(own, _COLUMNS.name == volume.name))
    if (present := same.scalar_one_or_none()) is not None:
        if present == volume.id:
            return  # a retry whose first answer got lost
        raise AlreadyExists(f"cannot create the volume: {volume.name!r} exists; choose another name")
    sums = select(func.count(), func.coalesce(func.sum(_COLUMNS.size_mb), 0)).where(own)
    count, size = connection.execute(sums).one()
    check_quota(volume, quota, count, int(size))
    connection.execute(insert(_ROWS).values(_to_row(volume)))


def check_quota(volume: Volume, quota: ProjectLimits, count: int, size_mb: int) -> None:
    """Raises LimitReached."""
    if count >= quota.volumes:
        raise LimitReached(f"cannot create another volume: the project's limit is {quota.volumes} (volumes)")
    if size_mb + volume.size_mb > quota.volume_mb:
        raise LimitReached(
            f"cannot create a volume of {volume.size_mb} MiB: the project has {size_mb} MiB of its limit of "
            f"{quota.volume_mb} (volume_mb); delete volumes, or ask for less"
        )


def mark_ready(connection: Connection, volume_id: str) -> None:
    connection.execute(update(_ROWS).where(_COLUMNS.id == volume_id).values(ready=True))


def find(connection: Connection, volume_id: str) -> Volume | None:
    row = connection.execute(select(_ROWS).where(_COLUMNS.id == volume_id, _COLUMNS.ready)).one_or_none()
    return None if row is None else _from_row(row)


def find_named(connection: Connection, project_id: str, name: str) -> Volume | None:
    named = select(_ROWS).where(_COLUMNS.project_id == project_id, _COLUMNS.name == name, _COLUMNS.ready)
    row = connection.execute(named).one_or_none()
    return None if row is None else _from_row(row)


def of_project(connection: Connection, project_id: str) -> Sequence[Volume]:
    own = select(_ROWS).where(_COLUMNS.project_id == project_id, _COLUMNS.ready)
    return [_from_row(row) for row in connection.execute(own.order_by(_COLUMNS.created_at, _COLUMNS.id))]


def claim_removal(connection: Connection, volume_id: str) -> Sequence[str]:
    found = find(connection, volume_id)
    if found is None:
        return []
    lock_project(connection, found.project_id)
    users = _users(connection, found)
    if not users:
        connection.execute(update(_ROWS).where(_COLUMNS.id == volume_id).values(ready=False))
    return users


def _users(connection: Connection, volume: Volume) -> Sequence[str]:
    """Live sandboxes that have it: few have any, so those are looked through."""
    having = select(_SANDBOXES.id, _SANDBOXES.volumes).where(
        _SANDBOXES.state.in_(LIVE), _SANDBOXES.project_id == volume.project_id, _SANDBOXES.volumes != "[]"
    )
    rows = connection.execute(having.order_by(_SANDBOXES.id))
    return [row.id for row in rows if any(mount.volume_id == volume.id for mount in parse_mounts(row.volumes))]


def forget(connection: Connection, volume_id: str) -> None:
    connection.execute(delete(_ROWS).where(_COLUMNS.id == volume_id))


def unfinished(connection: Connection, server_id: str) -> Sequence[Volume]:
    left = select(_ROWS).where(_COLUMNS.server_id == server_id, _COLUMNS.ready.is_(False))
    return [_from_row(row) for row in connection.execute(left.order_by(_COLUMNS.created_at, _COLUMNS.id))]


def _to_row(volume: Volume) -> dict[str, object]:
    return {
        "id": volume.id,
        "project_id": volume.project_id,
        "name": volume.name,
        "size_mb": volume.size_mb,
        "created_at": volume.created_at,
        "server_id": volume.server_id,
        "ready": volume.ready,
    }


def _from_row(row: Row[Any]) -> Volume:
    return Volume(row.id, row.project_id, row.name, row.size_mb, row.created_at, row.server_id, row.ready)
