"""The reference store: everything in dictionaries, gone with the process. For tests and for reading the contract."""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from warren.contracts.store import IdempotencyKey, KeyHolder, LogQuery, SandboxQuery
from warren.model import limits
from warren.model.errors import AlreadyExists, IdempotencyInFlight
from warren.model.observation import Level, LogEntry, Metric
from warren.model.project import ApiKey, Project, ProjectLimits
from warren.model.sandbox import TRANSITIONS, Desired, EndReason, Sandbox, State
from warren.model.server import Server
from warren.store.memory_secrets import MemorySecrets
from warren.store.memory_sleep import is_due
from warren.store.memory_templates import MemoryTemplates
from warren.store.memory_volumes import MemoryVolumes
from warren.store.retention import CREATE_ABANDONED, KEY_KEPT, METRICS_KEPT

_SEVERITY = {level: rank for rank, level in enumerate(Level)}


class MemoryStore(MemoryTemplates, MemoryVolumes, MemorySecrets):
    """No method awaits anything, so each is atomic."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[str, ApiKey] = {}
        self._servers: dict[str, Server] = {}
        self._metrics: defaultdict[str, dict[datetime, Metric]] = defaultdict(dict)
        self._logs: defaultdict[str, deque[LogEntry]] = defaultdict(lambda: deque(maxlen=limits.LOGS_KEPT_PER_SANDBOX))
        self._keyed: dict[tuple[str, str], tuple[datetime, KeyHolder]] = {}

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    # --- projects and keys ---------------------------------------------------------------------------------

    async def add_project(self, project: Project) -> None:
        if any(other.name == project.name and other.id != project.id for other in self._projects.values()):
            raise AlreadyExists(f"cannot create the project: {project.name!r} is in use; choose another name")
        self._projects.setdefault(project.id, project)

    async def projects(self) -> Sequence[Project]:
        return sorted(self._projects.values(), key=lambda project: (project.created_at, project.id))

    async def project(self, project_id: str) -> Project | None:
        return self._projects.get(project_id)

    async def set_limits(self, project_id: str, limits: ProjectLimits) -> bool:
        if project_id not in self._projects:
            return False
        self._projects[project_id] = replace(self._projects[project_id], limits=limits)
        return True

    async def add_key(self, key: ApiKey) -> None:
        self._keys.setdefault(key.id, key)

    async def keys(self, project_id: str) -> Sequence[ApiKey]:
        own = (key for key in self._keys.values() if key.project_id == project_id)
        return sorted(own, key=lambda key: (key.created_at, key.id))

    async def key_owner(self, digest: str) -> tuple[ApiKey, Project] | None:
        for key in self._keys.values():
            if key.digest == digest:
                return key, self._projects[key.project_id]
        return None

    async def rename_key(self, project_id: str, key_id: str, name: str) -> bool:
        key = self._keys.get(key_id)
        if key is None or key.project_id != project_id:
            return False
        self._keys[key_id] = replace(key, name=name)
        return True

    async def revoke_key(self, project_id: str, key_id: str) -> bool:
        key = self._keys.get(key_id)
        if key is None or key.project_id != project_id:
            return False
        del self._keys[key_id]
        return True

    async def touch_key(self, key_id: str, at: datetime) -> None:
        key = self._keys.get(key_id)
        if key is not None and (key.last_used_at is None or key.last_used_at < at):
            self._keys[key_id] = replace(key, last_used_at=at)

    # --- sandboxes -----------------------------------------------------------------------------------------

    async def add_sandbox(self, sandbox: Sandbox, quota: int, key: IdempotencyKey | None = None) -> bool:
        if (present := self._sandboxes.get(sandbox.id)) is not None:
            if present.project_id == sandbox.project_id and present.created_at == sandbox.created_at:
                return True
            raise AlreadyExists(f"cannot create the sandbox: the id {sandbox.id} was used before; take a new one")
        if key is not None and await self.key_holder(sandbox.project_id, key.key, sandbox.created_at):
            raise IdempotencyInFlight
        if sum(1 for other in self._of(sandbox.project_id) if other.holds_place) >= quota:
            return False
        self._check_volumes(sandbox)
        self._sandboxes[sandbox.id] = sandbox
        self._count_spawn(sandbox)
        if key is not None:
            self._keyed[sandbox.project_id, key.key] = (sandbox.created_at, KeyHolder(key.body_digest, sandbox.id))
        return True

    async def sandbox(self, project_id: str, sandbox_id: str) -> Sandbox | None:
        found = self._sandboxes.get(sandbox_id)
        return found if found is not None and found.project_id == project_id else None

    async def sandboxes(self, query: SandboxQuery) -> Sequence[Sandbox]:
        rows = [row for row in self._of(query.project_id) if row.state in query.states and _matches(row, query)]
        rows.sort(key=_position, reverse=not query.ascending)
        return rows[: query.limit]

    async def count_running(self, project_id: str) -> int:
        return sum(1 for row in self._of(project_id) if row.state is State.RUNNING)

    async def live_sandboxes(self, server_id: str) -> Sequence[Sandbox]:
        return sorted((row for row in self._on(server_id) if row.state.is_live), key=_position)

    async def overdue(self, server_id: str, now: datetime) -> Sequence[Sandbox]:
        return [
            row
            for row in self._on(server_id)
            if ((row.state is State.RUNNING or (row.state is State.PAUSED and row.is_idle)) and row.expires_at <= now)
            or (row.state.can_kill and row.desired is Desired.GONE)
        ]

    async def wish_gone(self, sandbox_id: str) -> Sandbox | None:
        row = self._sandboxes.get(sandbox_id)
        if row is None or not row.state.is_live:
            return None
        return self._put(replace(row, desired=Desired.GONE))

    async def move(self, sandbox_id: str, expected: frozenset[State], to: State) -> Sandbox | None:
        row = self._sandboxes.get(sandbox_id)
        if row is None or row.state not in expected or to not in TRANSITIONS[row.state]:
            return None
        return self._put(replace(row, state=to))

    async def mark_running(self, sandbox_id: str, started_at: datetime, expires_at: datetime) -> Sandbox | None:
        row = self._sandboxes.get(sandbox_id)
        if row is None or row.state is not State.CREATING:
            return None
        return self._put(replace(row, state=State.RUNNING, started_at=started_at, expires_at=expires_at))

    async def mark_killing(
        self, sandbox_id: str, reason: EndReason, due_by: datetime | None = None, *, if_paused: bool = False
    ) -> Sandbox | None:
        row = self._sandboxes.get(sandbox_id)
        if row is None or not row.state.can_kill or not is_due(row, due_by):
            return None
        if if_paused and row.state is not State.PAUSED:
            return None
        return self._put(replace(row, state=State.KILLING, desired=Desired.GONE, end_reason=reason))

    async def mark_gone(self, sandbox_id: str, reason: EndReason, at: datetime) -> bool:
        row = self._sandboxes.get(sandbox_id)
        if row is None or not row.state.is_live:
            return False
        self._put(replace(row, state=State.GONE, end_reason=row.end_reason or reason, ended_at=at))
        return True

    async def set_deadline(self, sandbox_id: str, expires_at: datetime, only_extend: bool) -> Sandbox | None:
        row = self._sandboxes.get(sandbox_id)
        if row is None or row.state is not State.RUNNING:
            return None
        return self._put(replace(row, expires_at=max(row.expires_at, expires_at) if only_extend else expires_at))

    async def set_network(self, sandbox_id: str, sandbox: Sandbox) -> Sandbox | None:
        row = self._sandboxes.get(sandbox_id)
        if row is None or row.state not in (State.RUNNING, State.PAUSED):
            return None
        return self._put(replace(row, network=sandbox.network))

    async def prune_gone(self, before: datetime) -> int:
        old = [
            row.id
            for row in self._sandboxes.values()
            if not row.state.is_live and (row.ended_at or row.expires_at) < before
        ]
        for sandbox_id in old:
            del self._sandboxes[sandbox_id]
            self._metrics.pop(sandbox_id, None)
            self._logs.pop(sandbox_id, None)
        return len(old)

    def _on(self, server_id: str) -> list[Sandbox]:
        return [row for row in self._sandboxes.values() if row.server_id == server_id]

    # --- servers -------------------------------------------------------------------------------------------

    async def register_server(self, server: Server) -> None:
        self._servers[server.id] = server
        for row in self._on(""):
            self._put(replace(row, server_id=server.id))

    async def beat(self, server_id: str, at: datetime) -> None:
        if server_id in self._servers:
            self._servers[server_id] = replace(self._servers[server_id], seen_at=at)

    async def servers(self) -> Sequence[Server]:
        return sorted(self._servers.values(), key=lambda server: (server.name, server.id))

    async def home(self, sandbox_id: str) -> Server | None:
        row = self._sandboxes.get(sandbox_id)
        return self._servers.get(row.server_id) if row is not None and row.state.is_live else None

    async def give_up(self, server: Server, now: datetime) -> Sequence[Sandbox]:
        if self._servers.get(server.id) != server:
            return []
        due = [
            row
            for row in self._on(server.id)
            if row.state.is_live
            and (
                row.desired is Desired.GONE
                or (row.expires_at <= now and not row.state.is_asleep and not row.lifecycle.auto_pause)
            )
        ]
        return [self._put(replace(row, state=State.GONE, end_reason=EndReason.LOST, ended_at=now)) for row in due]

    # --- observations --------------------------------------------------------------------------------------

    async def add_metrics(self, metrics: Sequence[Metric]) -> None:
        for metric in metrics:
            if metric.sandbox_id in self._sandboxes:
                samples = self._metrics[metric.sandbox_id]
                samples.setdefault(metric.at, metric)
                for at in [at for at in samples if at < metric.at - METRICS_KEPT]:
                    del samples[at]

    async def metrics(
        self, sandbox_id: str, start: datetime | None, end: datetime | None, limit: int
    ) -> Sequence[Metric]:
        samples = self._metrics.get(sandbox_id, {})
        within = [at for at in sorted(samples) if (start is None or at >= start) and (end is None or at <= end)]
        return [samples[at] for at in within[max(0, len(within) - limit) :]]

    async def latest_metrics(self, project_id: str, sandbox_ids: Sequence[str]) -> Mapping[str, Metric]:
        latest: dict[str, Metric] = {}
        for sandbox_id in sandbox_ids:
            row = await self.sandbox(project_id, sandbox_id)
            samples = self._metrics.get(sandbox_id)
            if row is not None and row.state is State.RUNNING and samples:
                latest[sandbox_id] = samples[max(samples)]
        return latest

    async def add_logs(self, sandbox_id: str, entries: Sequence[LogEntry]) -> None:
        if sandbox_id in self._sandboxes:
            self._logs[sandbox_id].extend(
                replace(entry, message=entry.message[: limits.LOG_MESSAGE_MAX]) for entry in entries
            )

    async def logs(self, sandbox_id: str, query: LogQuery) -> Sequence[LogEntry]:
        entries = [entry for entry in self._logs.get(sandbox_id, ()) if _wanted(entry, query)]
        entries.sort(key=lambda entry: entry.at)
        return (entries if query.ascending else entries[::-1])[: query.limit]

    # --- idempotency ---------------------------------------------------------------------------------------

    async def key_holder(self, project_id: str, key: str, at: datetime) -> KeyHolder | None:
        since, holder = self._keyed.get((project_id, key), (at, None))
        sandbox = None if holder is None else self._sandboxes.get(holder.sandbox_id)
        if sandbox is None or since < at - KEY_KEPT or sandbox.end_reason is EndReason.FAILED_TO_START:
            return None
        is_abandoned = sandbox.state is State.CREATING and sandbox.created_at < at - CREATE_ABANDONED
        return None if is_abandoned else holder


def _position(row: Sandbox) -> tuple[datetime, str]:
    return row.started_at, row.id


def _matches(row: Sandbox, query: SandboxQuery) -> bool:
    if query.after is not None:
        beyond = _position(row) > query.after if query.ascending else _position(row) < query.after
        if not beyond:
            return False
    return (
        query.metadata.items() <= row.metadata.items()
        and (query.template_ids is None or row.template_id in query.template_ids)
        and (query.started_after is None or row.started_at >= query.started_after)
    )


def _wanted(entry: LogEntry, query: LogQuery) -> bool:
    if query.start is not None:
        ahead = entry.at >= query.start if query.ascending else entry.at <= query.start
        if not ahead:
            return False
    return (query.level is None or _SEVERITY[entry.level] >= _SEVERITY[query.level]) and (
        not query.search or query.search in entry.message
    )
