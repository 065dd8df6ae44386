"""The seam between the engine and an OCI runtime's command line. All of it blocks: call it through `on_thread`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from warren.contracts.engine import SandboxSpec
from warren.engine.oci.fence import Fence
from warren.engine.oci.manifest import Manifest, Needs
from warren.engine.oci.record import Record
from warren.engine.oci.slot import Slot
from warren.model.snapshot import SnapshotKind


@dataclass(frozen=True, slots=True)
class Saved:
    """What a sandbox starts from: the part of a checkpoint that `save` wrote for this kind of start."""

    manifest: Manifest
    kind: SnapshotKind
    part: Path


class Runtime(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def guest_frees_memory(self) -> bool:
        """Whether the guest has to end processes at the memory limit, because the kernel would end the sandbox."""
        ...

    def prepare(self, slot: Slot) -> None:
        """Make ahead what a start on this slot will need."""
        ...

    def drop_image(self, path: str) -> None:
        """Let go of what starts hold of a template image that is being deleted."""
        ...

    def close(self) -> None:
        """Let go of what `prepare` and `start` hold for the next start; sandboxes go on."""
        ...

    def start(self, spec: SandboxSpec, slot: Slot, folder: Path, saved: Saved | None) -> int:
        """Start a sandbox; the pid of the process whose end is the sandbox's end. `folder` is its own and empty.

        Once it returns, nothing of `saved` is read any more. Raises EngineFailed; the caller then calls `delete`.
        """
        ...

    def delete(self, sandbox_id: str, folder: Path) -> None:
        """Kill it and remove what the runtime made, but not `folder`. Idempotent. Raises EngineFailed."""
        ...

    def disk_used(self, record: Record, folder: Path) -> int:
        """Bytes that its writable layer takes on the host's disk."""
        ...

    def fence(self, record: Record) -> Fence:
        """Stand watch at the memory limit of a sandbox that runs. Raises EngineFailed."""
        ...

    def refresh(self, record: Record, folder: Path) -> None:
        """Bring up to date what the sandbox is told of its own use, where the runtime needs help with that."""
        ...

    def reclaim(self, record: Record) -> int:
        """Take back memory that a frozen sandbox can do without; the bytes by which it became smaller."""
        ...

    @property
    def keeps_memory(self) -> bool: ...

    @property
    def needs(self) -> Needs:
        """What memory that is saved now will need, and saved memory must not need more of. Raises EngineFailed."""
        ...

    def halt(self, record: Record, folder: Path) -> None:
        """Bring every process to a standstill in which `save` finds memory and files as one. Idempotent."""
        ...

    def save(self, record: Record, folder: Path, target: Path, manifest: Manifest) -> Manifest:
        """Write what `manifest.kind` needs of a halted sandbox below `target`, into the folders of `manifest.PARTS`.

        The manifest comes back with what it needs of the runtime. Raises EngineFailed, NoSpace.
        """
        ...

    def wake(self, record: Record, folder: Path) -> None:
        """End a standstill. Idempotent, also for a sandbox that is not at one or is gone."""
        ...
