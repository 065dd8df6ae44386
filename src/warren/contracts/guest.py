"""Guest: what the server asks of the daemon inside a sandbox.

The guest is hostile: every answer is bounded (`limits.GUEST_ANSWER_MAX_BYTES`), every call has a deadline, and
nothing that a guest says is believed about anything but itself.
"""

import enum
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from warren.contracts.engine import GUEST_PORT
from warren.model.observation import LogEntry


@dataclass(frozen=True, slots=True)
class GuestIdentity:
    """What a guest is told before its sandbox is handed out (guestd `POST /init`).

    access_token None leaves the guest open to whoever reaches its port (older clients with `secure: false`).
    control_token guards the control routes from then on. `envs` None keeps those that the guest has.

    A guest that was restored from memory holds the tokens of an earlier life: `authority` is the control token that
    it still believes; None for one that has just booted. `is_copy`: that life goes on elsewhere, so the guest runs
    the after-fork hooks before it answers. `recalls_envs`: it boots on files that `retain_envs` left them in.
    """

    sandbox_id: str
    template_id: str
    control_token: str
    access_token: str | None
    hostname: str
    machine_id: str
    default_user: str
    default_workdir: str
    envs: Mapping[str, str] | None = field(default_factory=dict[str, str])
    dns_servers: Sequence[str] = ()
    authority: str | None = None
    is_copy: bool = False
    recalls_envs: bool = False


@dataclass(frozen=True, slots=True)
class GuestLogs:
    """Entries after the asked sequence number, before them one that counts those that were lost, if any were.

    `last` is the number to ask with next time.
    """

    entries: Sequence[LogEntry]
    last: int


@dataclass(frozen=True, slots=True)
class Door:
    """How to reach one guest: its address, and the tokens that its sandbox was given."""

    address: str
    control_token: str
    access_token: str
    port: int = GUEST_PORT


class Fate(enum.Enum):
    """KILLED, with its process group. OUTLIVES: it goes on. LEFT: nobody waits, the call ends when it has started."""

    KILLED = "killed"
    OUTLIVES = "outlives"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class GuestCommand:
    """`fate`: what becomes of it when its caller no longer waits."""

    words: Sequence[str]
    user: str
    cwd: str
    envs: Mapping[str, str] = field(default_factory=dict[str, str])
    fate: Fate = Fate.KILLED


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended. `refusal`, when it could not be started at all: the guest's code and words."""

    code: int
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class CopyOrder:
    """What COPY does with an archive: `source` as the archive's maker said, `target` absolute, `mode` octal or ""."""

    archive: Path
    source: str
    target: str
    owner: str
    mode: str = ""


OnLine = Callable[[str], None]
OnStart = Callable[[], None]


def nothing() -> None:
    """For who need not know that a command has started."""


class Workshop(Protocol):
    """What the build of a template asks of the guest that its steps run in. Raises Timeout and Unavailable."""

    async def run(
        self, door: Door, command: GuestCommand, on_line: OnLine, deadline_s: float, on_start: OnStart = nothing
    ) -> Exit:
        """Run a command to its end; each line of its output is handed over as it comes, cut and bounded.

        `on_start` is called once it runs.

        Raises Timeout when the deadline passes. Then, and when the caller is cancelled, its `fate` says what follows.
        """
        ...

    async def make_folder(self, door: Door, path: str, user: str) -> Exit:
        """Make a folder with its parents, the user's, if it is not there. The code is 0 or 1."""
        ...

    async def copy_in(self, door: Door, order: CopyOrder) -> Exit:
        """Unpack an archive in the sandbox. The code is 0 or 1."""
        ...

    async def settle(self, door: Door) -> None:
        """End every process in the sandbox but the guest."""
        ...

    def tree(self, door: Door, since_ns: int) -> AsyncIterator[bytes]:
        """The sandbox's tree of files, in the form that `Engine.bake` takes.

        Files that last changed at `since_ns` or before come without content. Only the end of the stream is its end: one
        that was broken off lacks its last record.
        """
        ...


class Guest(Protocol):
    """Each method raises Timeout after its deadline and Unavailable when the guest refuses or breaks off."""

    async def init(self, address: str, identity: GuestIdentity, deadline_s: float) -> None:
        """Wait until the guest listens, then give it its identity. Safe to retry with the same identity."""
        ...

    async def retain_envs(self, address: str, control_token: str) -> None:
        """Have the guest write the sandbox's environment where only its root reads, for a boot after a pause.

        It is also the question whether the guest answers at all. Safe to retry.
        """
        ...

    async def logs(self, address: str, control_token: str, after: int) -> GuestLogs:
        """Log entries with a sequence number above `after`, at most `limits.GUEST_LOG_BATCH`. Safe to retry."""
        ...

    async def check(self, address: str) -> None:
        """Return when the guest answers as one does; whatever else it says is as good as nothing. Safe to retry."""
        ...

    async def free(self, address: str, control_token: str, need: int, attempt: int) -> bool:
        """Have processes ended that hold `need` bytes together; whether there were any.

        From one attempt to the next it takes more: the largest processes, the largest family, all. Safe to retry.
        """
        ...

    async def close(self) -> None:
        """Drop pooled connections."""
        ...
