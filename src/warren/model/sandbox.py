"""A sandbox: what was asked for, what is, and what may happen to it next."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from warren.model import limits
from warren.model.pause import Lifecycle, Pause, PauseCause, PauseKind
from warren.model.policy import NetworkPolicy
from warren.model.volume import VolumeMount

SANDBOX_ID = re.compile(r"i[a-z0-9]{20}")
"""All ids have one length: to gVisor an id that is the prefix of another is ambiguous."""


class State(enum.StrEnum):
    """What the server has observed."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMING = "resuming"
    KILLING = "killing"
    GONE = "gone"

    @property
    def is_live(self) -> bool:
        """Whether there is something to lose: processes, or what is kept of them."""
        return self is not State.GONE

    @property
    def is_asleep(self) -> bool:
        """Whether its owner sees it as paused: it takes no traffic, and can be resumed now or in a moment."""
        return self in (State.PAUSING, State.PAUSED, State.RESUMING)

    @property
    def is_visible(self) -> bool:
        """Whether lists and look-ups show it."""
        return self is State.RUNNING or self.is_asleep

    @property
    def can_kill(self) -> bool:
        return State.KILLING in TRANSITIONS[self]


class Desired(enum.StrEnum):
    """What the owner wants; only use cases in `control` write it."""

    RUNNING = "running"
    GONE = "gone"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.CREATING: frozenset({State.RUNNING, State.KILLING, State.GONE}),
    State.RUNNING: frozenset({State.PAUSING, State.KILLING, State.GONE}),
    State.PAUSING: frozenset({State.RUNNING, State.PAUSED, State.KILLING, State.GONE}),
    State.PAUSED: frozenset({State.RESUMING, State.KILLING, State.GONE}),
    State.RESUMING: frozenset({State.RUNNING, State.PAUSED, State.KILLING, State.GONE}),
    State.KILLING: frozenset({State.GONE}),
    State.GONE: frozenset(),
}
"""The one table: from each state to those that may follow it. GONE after RUNNING is a death nobody asked for;
back from PAUSING or RESUMING goes what could not be finished.
"""


class EndReason(enum.StrEnum):
    """Why a sandbox is gone."""

    KILLED = "killed"
    EXPIRED = "expired"
    DIED = "died"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED_TO_START = "failed_to_start"
    PAUSED_TOO_LONG = "paused_too_long"
    LOST = "lost"
    """Its server was away when it was due to end; that server destroys what is left when it is back."""
    MACHINE_RESTARTED = "machine_restarted"
    SERVER_STOPPED = "server_stopped"


@dataclass(frozen=True, slots=True)
class Resources:
    """Sizes of one sandbox: whole CPUs, MiB of memory (no swap), MiB of writable disk, processes."""

    cpu_count: int = limits.DEFAULT_CPU_COUNT
    memory_mb: int = limits.DEFAULT_MEMORY_MB
    disk_mb: int = limits.DEFAULT_DISK_MB
    pids: int = limits.DEFAULT_PIDS


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One sandbox. Its owner's variables are not part of it: they go to the guest and are never stored.

    `digest`, `default_user`, `default_workdir` and `template_envs` are its template's as it was at the start: a resume
    finds the same root file system, whatever became of the template. `root_template_id`: the template itself, where
    `template_id` names a snapshot, or a snapshot of what that one started. `pause` is set while it sleeps.
    server_id: the server whose engine has it; no other one starts, watches or ends it.
    """

    id: str
    project_id: str
    template_id: str
    alias: str | None
    runtime: str
    resources: Resources
    state: State
    desired: Desired
    created_at: datetime
    started_at: datetime
    expires_at: datetime
    timeout_s: int
    root_template_id: str = ""
    digest: str = ""
    default_user: str = "user"
    default_workdir: str = "/home/user"
    template_envs: Mapping[str, str] = field(default_factory=dict[str, str])
    volumes: tuple[VolumeMount, ...] = ()
    secured: bool = True
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    pause: Pause | None = None
    network: NetworkPolicy = field(default_factory=NetworkPolicy)
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    end_reason: EndReason | None = None
    ended_at: datetime | None = None
    server_id: str = ""

    @property
    def is_idle(self) -> bool:
        """Whether it was put to sleep because nobody used it: its deadline goes on, and whatever is asked wakes it."""
        return self.state.is_asleep and self.pause is not None and self.pause.by is PauseCause.IDLE

    @property
    def holds_place(self) -> bool:
        """Whether it counts among the project's sandboxes at once. One that sleeps on disk does not."""
        if self.state is State.PAUSED:
            return self.pause is not None and self.pause.kind is PauseKind.FROZEN
        return self.state.is_live

    def extended_to(self, now: datetime, timeout_s: int) -> datetime:
        """The deadline after a connect or refresh for `timeout_s` seconds: it is never moved nearer."""
        return max(self.expires_at, now + timedelta(seconds=timeout_s))
