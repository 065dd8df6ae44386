"""Which sandbox holds an idempotency key."""

from datetime import datetime

from sqlalchemy import Connection, and_, delete, insert, not_, or_, select

from warren.contracts.store import IdempotencyKey, KeyHolder
from warren.model.sandbox import EndReason, Sandbox, State
from warren.store import schema
from warren.store.retention import CREATE_ABANDONED, KEY_KEPT

_COLUMNS, _SANDBOXES = schema.idempotency.c, schema.sandboxes.c


def holder(connection: Connection, project_id: str, key: str, at: datetime) -> KeyHolder | None:
    # Rows of earlier versions can be without a sandbox: of creates that were under way when their server ended.
    creating, failed = State.CREATING.value, EndReason.FAILED_TO_START.value
    given_up = or_(
        and_(_SANDBOXES.state == creating, _SANDBOXES.created_at < at - CREATE_ABANDONED),
        and_(_SANDBOXES.end_reason.is_not(None), _SANDBOXES.end_reason == failed),
    )
    held = select(_COLUMNS.body_digest, _COLUMNS.sandbox_id).join_from(
        schema.idempotency, schema.sandboxes, _SANDBOXES.id == _COLUMNS.sandbox_id
    )
    held = held.where(_COLUMNS.project_id == project_id, _COLUMNS.key == key)
    held = held.where(_COLUMNS.claimed_at >= at - KEY_KEPT, not_(given_up))
    found = connection.execute(held).one_or_none()
    return None if found is None else KeyHolder(found.body_digest, found.sandbox_id)


def hold(connection: Connection, sandbox: Sandbox, key: IdempotencyKey) -> None:
    """The key is free, and nobody else can take it meanwhile."""
    mine = and_(_COLUMNS.project_id == sandbox.project_id, _COLUMNS.key == key.key)
    old = _COLUMNS.claimed_at < sandbox.created_at - KEY_KEPT
    connection.execute(delete(schema.idempotency).where(or_(mine, old)))
    connection.execute(
        insert(schema.idempotency).values(
            project_id=sandbox.project_id, key=key.key, body_digest=key.body_digest,
            sandbox_id=sandbox.id, claimed_at=sandbox.created_at,
        )
    )  # fmt: skip
