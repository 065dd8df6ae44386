"""Rows of idempotency keys."""

from datetime import datetime

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from warren.contracts.store import IdempotencyRecord
from warren.model.errors import Busy
from warren.store import schema
from warren.store.database import insert_new
from warren.store.retention import CLAIM_ABANDONED, CLAIM_KEPT

_ATTEMPTS = 3
"""Between the insert that lost and the look at the winner, the winner can release its key (Postgres only)."""

_COLUMNS = schema.idempotency.c


async def claim(
    connection: AsyncConnection, project_id: str, key: str, body_digest: str, at: datetime
) -> IdempotencyRecord | None:
    abandoned = and_(_COLUMNS.sandbox_id.is_(None), _COLUMNS.claimed_at < at - CLAIM_ABANDONED)
    await connection.execute(delete(schema.idempotency).where(or_(_COLUMNS.claimed_at < at - CLAIM_KEPT, abandoned)))
    for _ in range(_ATTEMPTS):
        row = {"project_id": project_id, "key": key, "body_digest": body_digest, "claimed_at": at}
        inserted = await connection.execute(insert_new(connection, schema.idempotency).values(row))
        if inserted.rowcount > 0:
            return None
        held = select(schema.idempotency).where(_COLUMNS.project_id == project_id, _COLUMNS.key == key)
        if (found := (await connection.execute(held)).one_or_none()) is not None:
            return IdempotencyRecord(found.body_digest, found.sandbox_id)
    raise Busy("cannot claim the Idempotency-Key: others keep taking and releasing it; try again")


async def settle(connection: AsyncConnection, project_id: str, key: str, sandbox_id: str | None) -> None:
    mine = and_(_COLUMNS.project_id == project_id, _COLUMNS.key == key)
    if sandbox_id is None:
        await connection.execute(delete(schema.idempotency).where(mine))
    else:
        await connection.execute(update(schema.idempotency).where(mine).values(sandbox_id=sandbox_id))
