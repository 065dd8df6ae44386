"""Engine: what turns a specification into a running micro-container.

Life cycle of one sandbox, as every engine keeps it:

    create ──► running ──► (destroy | death) ──► gone

* `create` returns once the runtime has started PID 1 and the network rules are in force. Whether the guest
  answers is the caller's question (`contracts.guest`).
* An engine keeps what it needs to find its sandboxes again on its own disk: after a restart of the server,
  `list` on a fresh engine reports every sandbox that still runs, and all other methods work on them.
* Nothing of a sandbox outlives `destroy`: processes, mounts, loop devices, interfaces, cgroups, files.
* Cancelling `create` cleans up before the cancellation goes on.

Sleep and copies go through checkpoints, folders of the engine's own disk that outlive the sandbox, the server and
the machine's power:

    checkpoint(hold=False) ──► it goes on, the checkpoint starts others      (snapshot, fork)
    checkpoint(hold=True)  ──► standstill ──► destroy | thaw                 (pause: nothing runs in two places)
    create(restore=...)    ──► running, from a checkpoint
    freeze ──► reclaim ──► thaw                                              (asleep in memory)

A checkpoint is written once and whole: what a crash left half-written is cleared by `open` and never listed.

`tests/contract/engine_suite.py` holds the checks that every implementation passes.
"""

import enum
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from warren.contracts.volumes import Volumes
from warren.model.observation import Usage
from warren.model.policy import EgressPolicy
from warren.model.room import Room
from warren.model.sandbox import Resources
from warren.model.snapshot import SnapshotKind
from warren.model.template import TemplateImage
from warren.model.volume import VolumeMount

GUEST_PORT = 49983
"""The guest listens here in every sandbox (wire contract 3)."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint on this engine's disk. `bytes` is what it takes there.

    `build` names the runtime's build and the CPU features that its memory needs; "" when there is no memory in it.
    `kind` is what this server can start from it. `unreadable` says why it cannot tell what it holds (it is damaged, or
    another version wrote it): of such a one only the id and the bytes are known.
    """

    id: str
    sandbox_id: str
    runtime: str
    kind: SnapshotKind
    bytes: int
    build: str = ""
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class Restore:
    """How to start from a checkpoint. MEMORY: processes go on. FILESYSTEM: a boot on its files, from either kind."""

    checkpoint_id: str
    kind: SnapshotKind


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What to start. `hostname` is a DNS label; `dns_servers` are IPv4 addresses.

    With `restore`, image, runtime and resources are those that the checkpoint was made with, and with its memory
    also the places of the volumes. `in_background`: nobody waits for it; see `bring_forward`.
    """

    id: str
    runtime: str
    image: TemplateImage
    hostname: str
    resources: Resources
    egress: EgressPolicy = field(default_factory=EgressPolicy)
    restore: Restore | None = None
    volumes: tuple[VolumeMount, ...] = ()
    in_background: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a sandbox runs. `address` is what the host dials to reach its ports, guest and user ports alike."""

    id: str
    runtime: str
    address: str
    dns_servers: tuple[str, ...] = ()


class Shortage(enum.Enum):
    """What follows when a sandbox has come to its memory limit."""

    GUEST = "guest"
    """The guest has to end something."""
    KERNEL = "kernel"
    """The kernel has ended a process by itself."""
    GONE = "gone"
    """Nothing: the sandbox has ended."""


class Engine(Protocol):
    """All methods may raise EngineFailed with the runtime's words; errors listed below come on top."""

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Names that `SandboxSpec.runtime` may have, the default first."""
        ...

    @property
    def machine_restarted(self) -> bool:
        """Whether the machine was started anew since sandboxes were last made here: none of those can live."""
        ...

    @property
    def volumes(self) -> Volumes:
        """The volumes on this engine's disk."""
        ...

    async def open(self) -> None:
        """Prepare the machine (bridge, rules, cgroup parent, pools); clear what a crash left half-made.

        Idempotent. Raises Unavailable if another server holds this state folder.
        """
        ...

    async def close(self) -> None:
        """Release what `open` prepared, except what running sandboxes need: those go on."""
        ...

    async def create(self, spec: SandboxSpec) -> Placement:
        """Start a sandbox. Not idempotent: an id is used once.

        Raises NoCapacity when no slot is free or the machine has no room, BadRequest for an unknown runtime,
        VolumeNotFound for a volume that is not on this disk. With
        `spec.restore` also CheckpointNotFound, and CheckpointUnusable when this runtime or CPU cannot restore it or
        it is damaged; the checkpoint itself stays as it is. After any error nothing of the sandbox is left.
        """
        ...

    async def destroy(self, sandbox_id: str) -> None:
        """Kill every process and remove every trace. Idempotent: an unknown id is success. Safe to retry."""
        ...

    async def list(self) -> list[Placement]:
        """The sandboxes whose PID 1 is alive now."""
        ...

    async def room(self) -> Room:
        """What the machine has, and what of it is promised to the sandboxes that run."""
        ...

    def death(self, sandbox_id: str) -> Awaitable[None]:
        """Wait until PID 1 (or the runtime's kernel) of this sandbox is gone; at once if it is not there.

        No deadline of its own: the caller cancels it. Does not clean up: call `destroy`.
        """
        ...

    async def shortage(self, sandbox_id: str) -> Shortage:
        """Wait until a sandbox has come to its memory limit, or is gone; one caller at a time.

        No deadline of its own. `Shortage.GUEST`: the sandbox has been lent some memory, in which the guest has to
        end processes until `memory_excess` is 0. Said again after a `thaw`, which may find a loan that nobody sees to.
        """
        ...

    async def memory_excess(self, sandbox_id: str) -> int:
        """Bytes that a sandbox still has to give back of what `shortage` lent it; at 0 its limit is in force again.

        0 too when it is gone. Safe to retry.
        """
        ...

    async def usage(self, sandbox_id: str) -> Usage:
        """What the sandbox uses now, measured from outside. Raises SandboxNotFound."""
        ...

    async def bring_forward(self, sandbox_id: str) -> None:
        """Give what was started in the background the part of the processors that its sizes say.

        Until then it yields to whoever wants them. Raises SandboxNotFound, EngineFailed. Safe to retry.
        """
        ...

    async def set_egress(self, sandbox_id: str, egress: EgressPolicy) -> None:
        """Replace the egress rules at once and in one step; new connections are judged by the new rules.

        Raises SandboxNotFound. Safe to retry.
        """
        ...

    async def denials(self) -> Mapping[str, int]:
        """Packets that each sandbox sent and its rules refused, since it started: only those that had any.

        A count may begin anew when the rules are loaded again. An engine that cannot tell gives nothing.
        """
        ...

    def keeps_memory(self, runtime: str) -> bool:
        """Whether a sandbox of this runtime can be checkpointed with its memory."""
        ...

    async def checkpoint(
        self, sandbox_id: str, checkpoint_id: str, kind: SnapshotKind, *, hold: bool, durable: bool = True
    ) -> Checkpoint:
        """Write a running sandbox to disk under a new id; it survives a power cut once this returns.

        durable False: it need not outlive this server, which starts copies from it and forgets it.
        hold False: the sandbox goes on. hold True: it stays at a standstill until `thaw` or `destroy`. After an error
        or a cancellation it runs on, if it lives, and nothing of the checkpoint is left. Raises SandboxNotFound,
        SandboxChanging for one at a standstill, which stays so, NotSupported (MEMORY under a runtime that cannot),
        NoSpace. Not idempotent: an id is used once.
        """
        ...

    async def checkpoints(self) -> Sequence[Checkpoint]:
        """The whole ones on disk, also those that cannot be read, in no order."""
        ...

    async def forget(self, checkpoint_id: str) -> None:
        """Delete a checkpoint; it is gone from the disk when this returns. Idempotent, safe to retry.

        Sandboxes that were started from it go on.
        """
        ...

    async def bake(
        self, image: TemplateImage, tree: AsyncIterator[bytes], target: Path, *, epoch: int, disk_mb: int
    ) -> str:
        """Make a template image of `image` and the tree of a sandbox that began with it, at `target`; its digest.

        The same bytes for the same image and tree: times after `epoch`, in seconds, become it. `disk_mb` bounds what
        differs from the image. Raises BuildFailed for a tree that is broken or breaks a limit, NoSpace, Timeout.
        After an error or a cancellation nothing is left.
        """
        ...

    async def drop_image(self, image: TemplateImage) -> None:
        """Let go of what is held of a template image that is being deleted, so that its disk comes free. Idempotent.

        Sandboxes that were started from it go on.
        """
        ...

    async def freeze(self, sandbox_id: str) -> None:
        """Stop every process where it is, in memory. Idempotent. Raises SandboxNotFound."""
        ...

    async def thaw(self, sandbox_id: str) -> None:
        """Let a frozen or held sandbox go on. Idempotent: also for one that runs. Raises SandboxNotFound."""
        ...

    async def reclaim(self, sandbox_id: str) -> int:
        """Take back what memory a frozen sandbox can do without; returns the bytes. Raises SandboxNotFound."""
        ...
