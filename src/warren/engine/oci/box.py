"""One sandbox as this engine holds it: what is recorded of it, and the process whose end is its end."""

import asyncio
import contextlib
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from warren.contracts.engine import Placement, SandboxSpec
from warren.engine.oci.fence import STEP_PAUSE_S, Fence, Keep
from warren.engine.oci.process import ProcessId, is_over, kill
from warren.engine.oci.record import Record
from warren.engine.oci.slot import Slot
from warren.model.errors import EngineFailed
from warren.model.policy import EgressPolicy


@dataclass
class Box:
    """`gone` is set once the process has ended, or was never there. `lock` is held while it is changed or removed."""

    record: Record
    slot: Slot
    folder: Path
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    pidfd: int | None = None
    fence: Fence | None = None
    is_still: bool = False
    """Frozen or held, until it is thawed. Whoever copies it waits for `lock` first, and must not wake it."""
    _pause: asyncio.TimerHandle | None = None
    short: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the sandbox has come to its memory limit, until somebody has taken notice, and for good at its end."""

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def is_alive(self) -> bool:
        return self.pidfd is not None and not is_over(self.pidfd)

    @property
    def placement(self) -> Placement:
        record = self.record
        return Placement(record.id, record.runtime, str(self.slot.address), record.dns_servers)

    @property
    def egress(self) -> EgressPolicy:
        return EgressPolicy(
            allow=tuple(map(IPv4Network, self.record.allow)), deny=tuple(map(IPv4Network, self.record.deny))
        )

    def watch(self, process: ProcessId) -> bool:
        """Begin to wait for the end of its process; False when that is over already."""
        self.pidfd = process.open()
        if self.pidfd is None:
            self.over()
            return False
        asyncio.get_running_loop().add_reader(self.pidfd, self._ended)
        return True

    def guard(self, fence: Fence) -> None:
        """Begin to wait for its memory limit."""
        self.fence = fence
        asyncio.get_running_loop().add_reader(fence.descriptor, self._heard)

    def headroom(self, extra: int) -> AbstractContextManager[Keep]:
        """As of `Fence`."""
        return contextlib.nullcontext(lambda _: None) if self.fence is None else self.fence.headroom(extra)

    def has_to_free(self) -> bool:
        """Whether its guest has to free memory before the limit holds. Blocks."""
        if self.fence is None or not self.fence.guest_acts:
            return False
        try:
            return self.fence.put_back() > 0
        except EngineFailed:  # its group has ended
            return False

    def kill(self) -> None:
        """At once and whatever state it is in: a runtime would ask it first, and wait for one that is stopped."""
        if self.pidfd is not None:
            kill(self.pidfd)

    def unwatch(self) -> None:
        if self.fence is not None:
            asyncio.get_running_loop().remove_reader(self.fence.descriptor)
            self.fence.close()
            self.fence = None
        if self._pause is not None:
            self._pause.cancel()
        if self.pidfd is not None:
            asyncio.get_running_loop().remove_reader(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = None

    def over(self) -> None:
        self.gone.set()
        self.short.set()

    def _heard(self) -> None:
        if self.fence is not None and self.fence.heard():
            self.short.set()
            if self._pause is None:
                self.fence.step()
                self._pause = asyncio.get_running_loop().call_later(STEP_PAUSE_S, self._after_pause)

    def _after_pause(self) -> None:
        self._pause = None
        self._heard()

    def _ended(self) -> None:
        if self.pidfd is not None:
            asyncio.get_running_loop().remove_reader(self.pidfd)
        self.over()


def new_record(spec: SandboxSpec, slot: Slot, dns_servers: tuple[str, ...]) -> Record:
    return Record(
        id=spec.id,
        runtime=spec.runtime,
        slot=slot.index,
        address=str(slot.address),
        cpu_count=spec.resources.cpu_count,
        memory_mb=spec.resources.memory_mb,
        disk_mb=spec.resources.disk_mb,
        dns_servers=dns_servers,
        allow=tuple(map(str, spec.egress.allow)),
        deny=tuple(map(str, spec.egress.deny)),
        image=spec.image.digest,
        volumes=tuple(mount.volume_id for mount in spec.volumes),
        pids=spec.resources.pids,
    )
