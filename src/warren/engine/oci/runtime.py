"""The seam between the engine and an OCI runtime's command line. All of it blocks: call it through `on_thread`."""

from pathlib import Path
from typing import Protocol

from warren.contracts.engine import SandboxSpec
from warren.engine.oci.record import Record
from warren.engine.oci.slot import Slot


class Runtime(Protocol):
    @property
    def name(self) -> str: ...

    def prepare(self, slot: Slot) -> None:
        """Make ahead what a start on this slot will need."""
        ...

    def close(self) -> None:
        """Let go of what `prepare` and `start` hold for the next start; sandboxes go on."""
        ...

    def start(self, spec: SandboxSpec, slot: Slot, folder: Path) -> int:
        """Start a sandbox; the pid of the process whose end is the sandbox's end. `folder` is its own and empty.

        Raises EngineFailed; the caller then calls `delete`.
        """
        ...

    def delete(self, sandbox_id: str, folder: Path) -> None:
        """Kill it and remove what the runtime made, but not `folder`. Idempotent. Raises EngineFailed."""
        ...

    def disk_used(self, record: Record, folder: Path) -> int:
        """Bytes that its writable layer takes on the host's disk."""
        ...

    def refresh(self, record: Record, folder: Path) -> None:
        """Bring up to date what the sandbox is told of its own use, where the runtime needs help with that."""
        ...
