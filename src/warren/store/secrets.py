"""Rows of secrets and of their sealed values."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, tuple_, update

from warren.contracts.store import SecretQuery
from warren.model import limits
from warren.model.errors import AlreadyExists
from warren.model.secret import SealedValue, Secret
from warren.store import schema
from warren.store.sandboxes import lock_project

_ROWS = schema.secrets
_COLUMNS = schema.secrets.c
_VALUES = schema.secret_values.c


def add(connection: Connection, secret: Secret, value: SealedValue, quota: int) -> bool:
    lock_project(connection, secret.project_id)
    own = _COLUMNS.project_id == secret.project_id
    same = connection.execute(select(_COLUMNS.id).where(own, _COLUMNS.folded == secret.folded))
    if (present := same.scalar_one_or_none()) is not None:
        if present == secret.id:
            return True  # a retry whose first answer got lost
        raise AlreadyExists(f"cannot create the secret: {secret.name!r} exists; update it, or choose another name")
    if connection.execute(select(func.count()).select_from(_ROWS).where(own)).scalar_one() >= quota:
        return False
    connection.execute(insert(_ROWS).values(id=secret.id, project_id=secret.project_id, **_described(secret)))
    connection.execute(insert(schema.secret_values).values(_value_row(value)))
    return True


def renew(connection: Connection, secret: Secret, value: SealedValue) -> bool:
    before = update(_ROWS).where(
        _COLUMNS.project_id == secret.project_id, _COLUMNS.id == secret.id, _COLUMNS.version == secret.version - 1
    )
    if connection.execute(before.values(**_described(secret))).rowcount == 0:
        return False
    connection.execute(insert(schema.secret_values).values(_value_row(value)))
    old = _VALUES.secret_id == secret.id, _VALUES.version <= secret.version - limits.SECRET_VERSIONS_KEPT
    connection.execute(delete(schema.secret_values).where(*old))
    return True


def find(connection: Connection, project_id: str, reference: str) -> Secret | None:
    named = or_(_COLUMNS.id == reference, _COLUMNS.folded == reference.lower())
    row = connection.execute(select(_ROWS).where(_COLUMNS.project_id == project_id, named)).one_or_none()
    return None if row is None else _secret(row)


def page(connection: Connection, query: SecretQuery) -> Sequence[Secret]:
    wanted = select(_ROWS).where(_COLUMNS.project_id == query.project_id)
    if query.after is not None:
        wanted = wanted.where(tuple_(_COLUMNS.created_at, _COLUMNS.id) < query.after)
    newest_first = wanted.order_by(_COLUMNS.created_at.desc(), _COLUMNS.id.desc()).limit(query.limit)
    return [_secret(row) for row in connection.execute(newest_first)]


def remove(connection: Connection, project_id: str, secret_id: str) -> bool:
    """Its values go along by their foreign key."""
    gone = delete(_ROWS).where(_COLUMNS.project_id == project_id, _COLUMNS.id == secret_id)
    return connection.execute(gone).rowcount > 0


def values_under_other_keys(
    connection: Connection, key_id: str, after: tuple[str, int], limit: int
) -> Sequence[SealedValue]:
    place = tuple_(_VALUES.secret_id, _VALUES.version)
    joined = select(schema.secret_values, _COLUMNS.project_id).join_from(schema.secret_values, _ROWS)
    wanted = joined.where(_VALUES.key_id != key_id, place > after).order_by(_VALUES.secret_id, _VALUES.version)
    rows = connection.execute(wanted.limit(limit))
    return [SealedValue(row.project_id, row.secret_id, row.version, row.key_id, row.sealed) for row in rows]


def replace_value(connection: Connection, old: SealedValue, new: SealedValue) -> None:
    same = _VALUES.secret_id == old.secret_id, _VALUES.version == old.version, _VALUES.sealed == old.text
    connection.execute(update(schema.secret_values).where(*same).values(key_id=new.key_id, sealed=new.text))


def _described(secret: Secret) -> dict[str, object]:
    return {
        "name": secret.name,
        "folded": secret.folded,
        "version": secret.version,
        "metadata": json.dumps(dict(secret.metadata), sort_keys=True),
        "created_at": secret.created_at,
        "updated_at": secret.updated_at,
    }


def _value_row(value: SealedValue) -> dict[str, object]:
    return {
        "secret_id": value.secret_id,
        "version": value.version,
        "key_id": value.key_id,
        "sealed": value.text,
    }


def _secret(row: Row[Any]) -> Secret:
    return Secret(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        metadata=json.loads(row.metadata),
    )
