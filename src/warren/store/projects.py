"""Rows of projects and API keys."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, RowMapping, bindparam, delete, or_, select, update

from warren.model.errors import AlreadyExists
from warren.model.project import ApiKey, Project, ProjectLimits
from warren.store import schema
from warren.store.database import insert_new

_PROJECTS = schema.projects.c
_KEYS = schema.api_keys.c

# What every request runs is built once: SQLAlchemy takes longer to build a statement than SQLite to run it.
_KEY_OWNER = (
    select(schema.api_keys, *(column.label(f"owner_{column.name}") for column in _PROJECTS))
    .join_from(schema.api_keys, schema.projects)
    .where(_KEYS.digest == bindparam("wanted"))
)


def add(connection: Connection, project: Project) -> None:
    inserted = connection.execute(insert_new(connection, schema.projects).values(_project_row(project)))
    if inserted.rowcount == 0 and find(connection, project.id) is None:
        raise AlreadyExists(f"cannot create the project: {project.name!r} is in use; choose another name")


def find(connection: Connection, project_id: str) -> Project | None:
    rows = connection.execute(select(schema.projects).where(_PROJECTS.id == project_id))
    row = rows.mappings().one_or_none()
    return None if row is None else _project(row)


def everyone(connection: Connection) -> Sequence[Project]:
    rows = connection.execute(select(schema.projects).order_by(_PROJECTS.created_at, _PROJECTS.id))
    return [_project(row) for row in rows.mappings()]


def set_limits(connection: Connection, project_id: str, limits: ProjectLimits) -> bool:
    own = update(schema.projects).where(_PROJECTS.id == project_id)
    return connection.execute(own.values(_limits_row(limits))).rowcount > 0


def add_key(connection: Connection, key: ApiKey) -> None:
    connection.execute(
        insert_new(connection, schema.api_keys).values(
            id=key.id,
            project_id=key.project_id,
            name=key.name,
            digest=key.digest,
            mask=key.mask,
            created_at=key.created_at,
            last_used_at=key.last_used_at,
        )
    )


def keys(connection: Connection, project_id: str) -> Sequence[ApiKey]:
    own = select(schema.api_keys).where(_KEYS.project_id == project_id)
    rows = connection.execute(own.order_by(_KEYS.created_at, _KEYS.id))
    return [_key(row) for row in rows.mappings()]


def key_owner(connection: Connection, digest: str) -> tuple[ApiKey, Project] | None:
    row = connection.execute(_KEY_OWNER, {"wanted": digest}).mappings().one_or_none()
    return None if row is None else (_key(row), _project(row, "owner_"))


def rename_key(connection: Connection, project_id: str, key_id: str, name: str) -> bool:
    own = update(schema.api_keys).where(_KEYS.id == key_id, _KEYS.project_id == project_id)
    return connection.execute(own.values(name=name)).rowcount > 0


def revoke_key(connection: Connection, project_id: str, key_id: str) -> bool:
    own = delete(schema.api_keys).where(_KEYS.id == key_id, _KEYS.project_id == project_id)
    return connection.execute(own).rowcount > 0


def touch_key(connection: Connection, key_id: str, at: datetime) -> None:
    earlier = or_(_KEYS.last_used_at.is_(None), _KEYS.last_used_at < at)
    connection.execute(update(schema.api_keys).where(_KEYS.id == key_id, earlier).values(last_used_at=at))


def _project_row(project: Project) -> dict[str, object]:
    return {
        "id": project.id,
        "name": project.name,
        "created_at": project.created_at,
        **_limits_row(project.limits),
    }


def _limits_row(limits: ProjectLimits) -> dict[str, int]:
    return {f"max_{name}": value for name, value in asdict(limits).items()}


def _project(row: RowMapping, prefix: str = "") -> Project:
    return Project(
        id=row[f"{prefix}id"],
        name=row[f"{prefix}name"],
        created_at=row[f"{prefix}created_at"],
        limits=ProjectLimits(
            sandboxes=row[f"{prefix}max_sandboxes"],
            lifetime_s=row[f"{prefix}max_lifetime_s"],
            cpu_count=row[f"{prefix}max_cpu_count"],
            memory_mb=row[f"{prefix}max_memory_mb"],
            disk_mb=row[f"{prefix}max_disk_mb"],
            snapshot_mb=row[f"{prefix}max_snapshot_mb"],
            paused_days=row[f"{prefix}max_paused_days"],
            secrets=row[f"{prefix}max_secrets"],
            volumes=row[f"{prefix}max_volumes"],
            volume_mb=row[f"{prefix}max_volume_mb"],
        ),
    )


def _key(row: RowMapping) -> ApiKey:
    return ApiKey(
        id=row["id"],
        project_id=row["project_id"],
        name=row["name"],
        digest=row["digest"],
        mask=row["mask"],
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
    )
