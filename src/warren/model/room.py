"""What a machine has, what of it is promised to sandboxes, and whether one more fits. All sizes in MiB."""

from collections.abc import Iterable
from dataclasses import dataclass

from warren.model import limits
from warren.model.sandbox import Resources


@dataclass(frozen=True, slots=True)
class Machine:
    """`memory_available`: what could be handed out without swapping. The disk is that of the state folder."""

    memory_total: int
    memory_available: int
    disk_total: int
    disk_free: int


@dataclass(frozen=True, slots=True)
class Room:
    """`*_committed`: the sum of what the sandboxes that run may use at most. `*_limit`: what that sum may reach."""

    machine: Machine
    sandboxes: int
    memory_committed: int
    memory_limit: int
    disk_committed: int
    disk_limit: int

    @classmethod
    def of(cls, machine: Machine, running: Iterable[Resources], memory_overcommit: int, disk_overcommit: int) -> "Room":
        sizes = list(running)
        return cls(
            machine,
            sandboxes=len(sizes),
            memory_committed=sum(size.memory_mb for size in sizes),
            memory_limit=machine.memory_total * memory_overcommit,
            disk_committed=sum(size.disk_mb for size in sizes),
            disk_limit=machine.disk_total * disk_overcommit,
        )

    def refusal(self, wanted: Resources) -> str | None:
        """Why a sandbox of this size does not fit, as the end of "cannot place another sandbox on this machine: …"."""
        floor = limits.MEMORY_RESERVE_MB
        if self.machine.memory_available < floor:
            return f"{self.machine.memory_available} MiB of memory are available, below the reserve of {floor}"
        if self.memory_committed + wanted.memory_mb > self.memory_limit:
            return _too_much("memory", self.memory_committed, wanted.memory_mb, self.memory_limit)
        if self.disk_committed + wanted.disk_mb > self.disk_limit:
            return _too_much("disk", self.disk_committed, wanted.disk_mb, self.disk_limit)
        return None


def _too_much(what: str, committed: int, wanted: int, limit: int) -> str:
    return (
        f"{committed} MiB of {what} are promised, {wanted} more would exceed {limit} (WARREN_{what.upper()}_OVERCOMMIT)"
    )
