"""Falling asleep and waking: transitions of sandboxes that carry a pause along."""

from datetime import datetime

from sqlalchemy import Connection, func, select

from warren.model.errors import LimitReached
from warren.model.pause import Pause, PauseCause
from warren.model.sandbox import Sandbox, State
from warren.model.snapshot import SnapshotUsage
from warren.store import schema
from warren.store.sandbox_row import from_row, pause_columns
from warren.store.sandboxes import LIVE, change, count_holding, lock_project
from warren.store.templates import tagged_checkpoints

_SANDBOXES = schema.sandboxes.c
_SNAPSHOTS = schema.snapshots.c
_ASLEEP = tuple(state.value for state in State if state.is_asleep)


def claim_pause(connection: Connection, sandbox_id: str, pause: Pause) -> Sandbox | None:
    changes = {"state": State.PAUSING.value, **pause_columns(pause)}
    return change(connection, sandbox_id, frozenset({State.RUNNING}), changes, pause.due_by)


def mark_paused(connection: Connection, sandbox_id: str, size: int) -> Sandbox | None:
    changes = {"state": State.PAUSED.value, "pause_bytes": size}
    return change(connection, sandbox_id, frozenset({State.PAUSING}), changes)


def claim_resume(connection: Connection, project_id: str, sandbox_id: str, quota: int) -> Sandbox | None:
    lock_project(connection, project_id)
    claimed = change(connection, sandbox_id, frozenset({State.PAUSED}), {"state": State.RESUMING.value})
    if claimed is not None and count_holding(connection, project_id) > quota:
        raise LimitReached(
            f"cannot resume the sandbox: the project's limit of {quota} sandboxes at once (sandboxes) is reached; "
            "kill one or raise the limit"
        )
    return claimed


def mark_awake(connection: Connection, sandbox_id: str, expires_at: datetime) -> Sandbox | None:
    changes = {"state": State.RUNNING.value, "expires_at": expires_at, **pause_columns(None)}
    return change(connection, sandbox_id, frozenset({State.PAUSING, State.RESUMING}), changes)


def sleeper(connection: Connection, sandbox_id: str) -> Sandbox | None:
    asleep = select(schema.sandboxes).where(_SANDBOXES.id == sandbox_id, _SANDBOXES.state.in_(_ASLEEP))
    row = connection.execute(asleep).one_or_none()
    return None if row is None else from_row(row)


def keep_asleep(connection: Connection, sandbox_id: str, by: PauseCause) -> Sandbox | None:
    return change(connection, sandbox_id, frozenset({State.PAUSED}), {"pause_by": by.value})


def referenced_checkpoints(connection: Connection) -> frozenset[str]:
    paused = select(_SANDBOXES.pause_checkpoint).where(
        _SANDBOXES.state.in_(LIVE), _SANDBOXES.pause_checkpoint.is_not(None)
    )
    kept = select(_SNAPSHOTS.checkpoint_id)
    return frozenset(connection.execute(paused.union(kept, tagged_checkpoints())).scalars())


def usage(connection: Connection, project_id: str) -> SnapshotUsage:
    paused = select(func.count(), func.coalesce(func.sum(_SANDBOXES.pause_bytes), 0)).where(
        _SANDBOXES.state.in_(LIVE), _SANDBOXES.pause_checkpoint.is_not(None), _SANDBOXES.project_id == project_id
    )
    kept = select(func.count(), func.coalesce(func.sum(_SNAPSHOTS.bytes), 0)).where(_SNAPSHOTS.project_id == project_id)
    sandboxes = connection.execute(paused).one()
    snapshots = connection.execute(kept).one()
    return SnapshotUsage(int(sandboxes[0]), int(sandboxes[1]), int(snapshots[0]), int(snapshots[1]))
