"""Store: what must survive a restart of the server.

Each method is one short transaction; none calls anything outside the database. All are safe to retry unless
they say otherwise. Raises Busy when the database stays locked past its own deadline.
`tests/contract/store_suite.py` holds the checks that every implementation passes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from warren.contracts.template_store import Builds, Templates
from warren.contracts.volume_store import Volumes
from warren.model.observation import Level, LogEntry, Metric
from warren.model.pause import Pause, PauseCause
from warren.model.project import ApiKey, Project, ProjectLimits
from warren.model.sandbox import EndReason, Sandbox, State
from warren.model.secret import SealedValue, Secret
from warren.model.server import Server
from warren.model.snapshot import Snapshot, SnapshotUsage


@dataclass(frozen=True, slots=True)
class SandboxQuery:
    """Filters of a list of sandboxes. `after` is the (started_at, id) of the last row seen."""

    project_id: str
    states: frozenset[State] = frozenset({State.RUNNING})
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    template_ids: frozenset[str] | None = None
    started_after: datetime | None = None
    ascending: bool = False
    limit: int = 100
    after: tuple[datetime, str] | None = None


@dataclass(frozen=True, slots=True)
class SnapshotQuery:
    """Filters of a list of snapshots, newest first. `after` is the (created_at, id) of the last row seen."""

    project_id: str
    source_id: str | None = None
    name: str | None = None
    tag: str | None = None
    limit: int = 100
    after: tuple[datetime, str] | None = None


@dataclass(frozen=True, slots=True)
class SecretQuery:
    """A page of a project's secrets, newest first. `after` is the (created_at, id) of the last row seen."""

    project_id: str
    limit: int = 100
    after: tuple[datetime, str] | None = None


@dataclass(frozen=True, slots=True)
class LogQuery:
    """`start` inclusive; `cursor` likewise but in the direction of reading; `search` is a plain substring."""

    start: datetime | None = None
    limit: int = 1000
    ascending: bool = True
    level: Level | None = None
    search: str | None = None


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What a caller sent with a create, and the digest of that request."""

    key: str
    body_digest: str


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """The sandbox that was created, or is being created, under an idempotency key."""

    body_digest: str
    sandbox_id: str


class Projects(Protocol):
    async def add_project(self, project: Project) -> None:
        """Raises AlreadyExists for a name in use."""
        ...

    async def projects(self) -> Sequence[Project]:
        """All, oldest first."""
        ...

    async def project(self, project_id: str) -> Project | None: ...

    async def set_limits(self, project_id: str, limits: ProjectLimits) -> bool:
        """From the next request on. False when there is no such project."""
        ...

    async def add_key(self, key: ApiKey) -> None: ...

    async def keys(self, project_id: str) -> Sequence[ApiKey]:
        """Keys in force, oldest first."""
        ...

    async def key_owner(self, digest: str) -> tuple[ApiKey, Project] | None:
        """Who holds the key with this digest; None for an unknown or revoked one."""
        ...

    async def rename_key(self, project_id: str, key_id: str, name: str) -> bool: ...

    async def revoke_key(self, project_id: str, key_id: str) -> bool:
        """False when the project has no such key."""
        ...

    async def touch_key(self, key_id: str, at: datetime) -> None:
        """Remember when the key was last used."""
        ...


class Sandboxes(Protocol):
    async def add_sandbox(self, sandbox: Sandbox, quota: int, key: IdempotencyKey | None = None) -> bool:
        """Insert, unless `quota` places of the project are held already (then False): one transaction, no race.

        See `model.sandbox.Sandbox.holds_place`. From then on the sandbox holds `key`; raises IdempotencyInFlight when
        another one does, and VolumeNotFound when one of its volumes is gone.
        """
        ...

    async def sandbox(self, project_id: str, sandbox_id: str) -> Sandbox | None:
        """Whatever its state, but only the project's own."""
        ...

    async def sandboxes(self, query: SandboxQuery) -> Sequence[Sandbox]:
        """Those of the project in one of the states, by (started_at, id); up to `limit`."""
        ...

    async def count_running(self, project_id: str) -> int: ...

    async def live_sandboxes(self, server_id: str) -> Sequence[Sandbox]:
        """Of all projects, every one of this server that is not gone."""
        ...

    async def overdue(self, server_id: str, now: datetime) -> Sequence[Sandbox]:
        """Of all projects, this server's sandboxes that are to be ended now and are not being ended.

        Those are the running ones whose deadline has come, the idle ones among them that were put to sleep, and the
        ones that are wished gone.
        """
        ...

    async def wish_gone(self, sandbox_id: str) -> Sandbox | None:
        """Set desired to gone, for the server that has the sandbox to act on. None when it is gone already."""
        ...

    async def move(self, sandbox_id: str, expected: frozenset[State], to: State) -> Sandbox | None:
        """Compare-and-set of the observed state along `model.sandbox.TRANSITIONS`.

        Returns the new row, or None when the state was not one of `expected`.
        """
        ...

    async def mark_running(self, sandbox_id: str, started_at: datetime, expires_at: datetime) -> Sandbox | None:
        """creating -> running, with the times that count from now on; None when it is not creating any more."""
        ...

    async def mark_killing(
        self, sandbox_id: str, reason: EndReason, due_by: datetime | None = None, *, if_paused: bool = False
    ) -> Sandbox | None:
        """Any state that can be killed -> killing, for this reason, and desired to gone; None when it was another.

        With `due_by` only if its deadline has come by then: None too when it was extended meanwhile. With `if_paused`
        only from paused.
        """
        ...

    async def mark_gone(self, sandbox_id: str, reason: EndReason, at: datetime) -> bool:
        """Any live state -> gone. Idempotent: the first reason stays, also that of `mark_killing`.

        Whether it was this call that did it.
        """
        ...

    async def set_deadline(self, sandbox_id: str, expires_at: datetime, only_extend: bool) -> Sandbox | None:
        """Move the deadline of a running sandbox; with `only_extend` never nearer. None when it is not running."""
        ...

    async def set_network(self, sandbox_id: str, sandbox: Sandbox) -> Sandbox | None:
        """Store the network policy of `sandbox` for a running or a paused one; None in any other state."""
        ...

    async def prune_gone(self, before: datetime) -> int:
        """Forget sandboxes that ended before, with their logs and metrics; returns how many."""
        ...


class Sleep(Protocol):
    """The ways into and out of PAUSED. Each is a compare-and-set; None when the state was another one."""

    async def claim_pause(self, sandbox_id: str, pause: Pause) -> Sandbox | None:
        """running -> pausing. From now on the pause's checkpoint is referenced.

        A pause by the deadline only if that has come when the pause begins: None too when it was extended meanwhile.
        """
        ...

    async def mark_paused(self, sandbox_id: str, size: int) -> Sandbox | None:
        """pausing -> paused, with the bytes it takes on disk. Survives a power cut once it is answered."""
        ...

    async def claim_resume(self, project_id: str, sandbox_id: str, quota: int) -> Sandbox | None:
        """paused -> resuming, unless more than `quota` places of the project would be held: then LimitReached."""
        ...

    async def mark_awake(self, sandbox_id: str, expires_at: datetime) -> Sandbox | None:
        """pausing or resuming -> running. The pause is over: its checkpoint is not referenced any more."""
        ...

    async def sleeper(self, sandbox_id: str) -> Sandbox | None:
        """A sandbox of whatever project that sleeps, or is on its way into sleep or out of it."""
        ...

    async def keep_asleep(self, sandbox_id: str, by: PauseCause) -> Sandbox | None:
        """Another cause for a sandbox that is paused: from idle, which anything wakes, to one that its owner wished."""
        ...

    async def referenced_checkpoints(self) -> frozenset[str]:
        """Of all projects, what live sandboxes, snapshots and tagged builds stand on."""
        ...

    async def snapshot_usage(self, project_id: str) -> SnapshotUsage: ...


class Snapshots(Protocol):
    async def add_snapshot(self, snapshot: Snapshot) -> None:
        """Insert. Its name and tag, if it has one, are taken from the snapshot that held them."""
        ...

    async def snapshot(self, project_id: str, snapshot_id: str) -> Snapshot | None: ...

    async def named_snapshot(self, project_id: str, name: str, tag: str) -> Snapshot | None:
        """The one that holds the name now."""
        ...

    async def snapshots(self, query: SnapshotQuery) -> Sequence[Snapshot]: ...

    async def remove_snapshot(self, project_id: str, snapshot_id: str) -> bool:
        """Whether it was this call that removed it."""
        ...


class Secrets(Protocol):
    """Secrets and their sealed values; the store cannot open any."""

    async def add_secret(self, secret: Secret, value: SealedValue, quota: int) -> bool:
        """Insert with its first value, unless the project has `quota` already (then False).

        Raises AlreadyExists when the project has one of that name, whatever its case.
        """
        ...

    async def renew_secret(self, secret: Secret, value: SealedValue) -> bool:
        """Put `secret`, whose version is one more than before, and its value in place; not safe to retry.

        False when that is not the version before, or the secret is gone. Drops values older than
        `limits.SECRET_VERSIONS_KEPT` versions.
        """
        ...

    async def find_secret(self, project_id: str, reference: str) -> Secret | None:
        """By id, or by name in whatever case."""
        ...

    async def secrets(self, query: SecretQuery) -> Sequence[Secret]: ...

    async def remove_secret(self, project_id: str, secret_id: str) -> bool:
        """With all its values. Whether it was this call that removed it."""
        ...

    async def values_under_other_keys(self, key_id: str, after: tuple[str, int], limit: int) -> Sequence[SealedValue]:
        """Of all projects, values that another key sealed, by (secret_id, version) from behind `after`."""
        ...

    async def replace_value(self, old: SealedValue, new: SealedValue) -> None:
        """The same value, sealed otherwise. Does nothing when what is stored is not `old` any more."""
        ...


class Servers(Protocol):
    """The servers that use this store, each with a heartbeat."""

    async def register_server(self, server: Server) -> None:
        """Insert or replace by id. The first one takes the sandboxes of the time before servers had ids."""
        ...

    async def beat(self, server_id: str, at: datetime) -> None:
        """Heartbeat of a registered server."""
        ...

    async def servers(self) -> Sequence[Server]:
        """All that ever registered, by name."""
        ...

    async def home(self, sandbox_id: str) -> Server | None:
        """The server that has this live sandbox, of whatever project."""
        ...

    async def give_up(self, server: Server, now: datetime) -> Sequence[Sandbox]:
        """End, as lost, the sandboxes of a server that is away: the overdue ones and those that are wished gone.

        Does nothing if that server's heartbeat is not `server.seen_at` any more: one transaction, no race.
        """
        ...


class Observations(Protocol):
    async def add_metrics(self, metrics: Sequence[Metric]) -> None: ...

    async def metrics(
        self, sandbox_id: str, start: datetime | None, end: datetime | None, limit: int
    ) -> Sequence[Metric]:
        """Ascending by time, both ends inclusive; with more than `limit` rows the latest ones."""
        ...

    async def latest_metrics(self, project_id: str, sandbox_ids: Sequence[str]) -> Mapping[str, Metric]:
        """The last sample of each running sandbox of the project among `sandbox_ids`."""
        ...

    async def add_logs(self, sandbox_id: str, entries: Sequence[LogEntry]) -> None:
        """Append, and drop the oldest rows above `limits.LOGS_KEPT_PER_SANDBOX`."""
        ...

    async def logs(self, sandbox_id: str, query: LogQuery) -> Sequence[LogEntry]: ...


class Idempotency(Protocol):
    async def key_holder(self, project_id: str, key: str, at: datetime) -> KeyHolder | None:
        """None when the key is free: not used within the TTL, or for a start that failed or was abandoned."""
        ...


class Store(
    Projects,
    Sandboxes,
    Sleep,
    Snapshots,
    Secrets,
    Volumes,
    Servers,
    Templates,
    Builds,
    Observations,
    Idempotency,
    Protocol,
):
    async def open(self) -> None:
        """Connect and bring the schema up to date. Idempotent."""
        ...

    async def close(self) -> None: ...
