"""The reference store's part about sleep and snapshots."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from warren.contracts.store import SnapshotQuery
from warren.model.errors import LimitReached
from warren.model.pause import Pause, PauseCause
from warren.model.sandbox import Sandbox, State
from warren.model.snapshot import Snapshot, SnapshotUsage


def is_due(row: Sandbox, due_by: datetime | None) -> bool:
    return due_by is None or row.expires_at <= due_by


class MemorySleep:
    def __init__(self) -> None:
        super().__init__()
        self._sandboxes: dict[str, Sandbox] = {}
        self._snapshots: dict[str, Snapshot] = {}

    async def claim_pause(self, sandbox_id: str, pause: Pause) -> Sandbox | None:
        row = self._sandboxes.get(sandbox_id)
        if row is None or not is_due(row, pause.due_by):
            return None
        return self._change(sandbox_id, {State.RUNNING}, state=State.PAUSING, pause=pause)

    async def mark_paused(self, sandbox_id: str, size: int) -> Sandbox | None:
        row = self._sandboxes.get(sandbox_id)
        pause = None if row is None or row.pause is None else replace(row.pause, bytes=size)
        return self._change(sandbox_id, {State.PAUSING}, state=State.PAUSED, pause=pause)

    async def claim_resume(self, project_id: str, sandbox_id: str, quota: int) -> Sandbox | None:
        row = self._sandboxes.get(sandbox_id)
        if row is None or row.state is not State.PAUSED:
            return None
        holding = sum(1 for other in self._of(project_id) if other.holds_place or other.id == sandbox_id)
        if holding > quota:
            raise LimitReached(f"cannot resume the sandbox: the project's limit of {quota} (sandboxes) is reached")
        return self._change(sandbox_id, {State.PAUSED}, state=State.RESUMING)

    async def mark_awake(self, sandbox_id: str, expires_at: datetime) -> Sandbox | None:
        asleep = {State.PAUSING, State.RESUMING}
        return self._change(sandbox_id, asleep, state=State.RUNNING, expires_at=expires_at, pause=None)

    async def sleeper(self, sandbox_id: str) -> Sandbox | None:
        row = self._sandboxes.get(sandbox_id)
        return row if row is not None and row.state.is_asleep else None

    async def keep_asleep(self, sandbox_id: str, by: PauseCause) -> Sandbox | None:
        row = self._sandboxes.get(sandbox_id)
        pause = None if row is None or row.pause is None else replace(row.pause, by=by)
        return self._change(sandbox_id, {State.PAUSED}, pause=pause)

    async def referenced_checkpoints(self) -> frozenset[str]:
        paused = {row.pause.checkpoint_id for row in self._sandboxes.values() if row.state.is_live and row.pause}
        return frozenset(
            {name for name in paused if name is not None} | {one.checkpoint_id for one in self._snapshots.values()}
        )

    async def snapshot_usage(self, project_id: str) -> SnapshotUsage:
        paused = [
            row.pause.bytes
            for row in self._of(project_id)
            if row.state.is_live and row.pause is not None and row.pause.checkpoint_id is not None
        ]
        kept = [one.bytes for one in self._snapshots.values() if one.project_id == project_id]
        return SnapshotUsage(len(paused), sum(paused), len(kept), sum(kept))

    async def add_snapshot(self, snapshot: Snapshot) -> None:
        held = await self.named_snapshot(snapshot.project_id, snapshot.name or "", snapshot.tag)
        if held is not None:
            self._snapshots[held.id] = replace(held, name=None)
        self._snapshots[snapshot.id] = snapshot

    async def snapshot(self, project_id: str, snapshot_id: str) -> Snapshot | None:
        found = self._snapshots.get(snapshot_id)
        return found if found is not None and found.project_id == project_id else None

    async def named_snapshot(self, project_id: str, name: str, tag: str) -> Snapshot | None:
        for one in self._snapshots.values():
            if (one.project_id, one.name, one.tag) == (project_id, name, tag):
                return one
        return None

    async def snapshots(self, query: SnapshotQuery) -> Sequence[Snapshot]:
        wanted = [
            one
            for one in self._snapshots.values()
            if one.project_id == query.project_id
            and query.source_id in (None, one.source_id)
            and query.name in (None, one.name)
            and query.tag in (None, one.tag)
            and (query.after is None or (one.created_at, one.id) < query.after)
        ]
        return sorted(wanted, key=lambda one: (one.created_at, one.id), reverse=True)[: query.limit]

    async def remove_snapshot(self, project_id: str, snapshot_id: str) -> bool:
        if await self.snapshot(project_id, snapshot_id) is None:
            return False
        del self._snapshots[snapshot_id]
        return True

    def _of(self, project_id: str) -> list[Sandbox]:
        return [row for row in self._sandboxes.values() if row.project_id == project_id]

    def _put(self, row: Sandbox) -> Sandbox:
        self._sandboxes[row.id] = row
        return row

    def _change(self, sandbox_id: str, expected: set[State], **changes: object) -> Sandbox | None:
        row = self._sandboxes.get(sandbox_id)
        if row is None or row.state not in expected:
            return None
        return self._put(replace(row, **changes))  # pyright: ignore[reportArgumentType]
