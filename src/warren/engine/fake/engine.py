"""Sandboxes that exist only as rows of a table (`warren.contracts.engine.Engine`)."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from warren.contracts.engine import Checkpoint, Placement, Restore, SandboxSpec, Shortage
from warren.engine.fake.volumes import FakeVolume, FakeVolumes
from warren.model.errors import (
    AlreadyExists,
    BadRequest,
    CheckpointNotFound,
    CheckpointUnusable,
    EngineFailed,
    NoCapacity,
    NoSpace,
    NotSupported,
    SandboxChanging,
    SandboxNotFound,
    Unavailable,
)
from warren.model.observation import Usage
from warren.model.policy import EgressPolicy
from warren.model.room import Machine, Room
from warren.model.snapshot import SnapshotKind
from warren.model.template import TemplateImage

MIB = 1024 * 1024
DEFAULT_SLOTS = 1000
LARGE = Machine(memory_total=1 << 20, memory_available=1 << 19, disk_total=1 << 20, disk_free=1 << 19)


@dataclass
class FakeSandbox:
    """`gone` is set when its PID 1 has ended; `is_still` while it is frozen or held."""

    spec: SandboxSpec
    placement: Placement
    egress: EgressPolicy
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    is_still: bool = False
    in_background: bool = False
    shortages: asyncio.Queue[Shortage] = field(default_factory=asyncio.Queue[Shortage])
    excess: list[int] = field(default_factory=list[int])

    def end(self) -> None:
        self.gone.set()
        self.shortages.put_nowait(Shortage.GONE)


@dataclass
class FakeMachine:
    """What outlives a server: hand the same one to a second engine to test adoption."""

    slots: int = DEFAULT_SLOTS
    size: Machine = LARGE
    sandboxes: dict[str, FakeSandbox] = field(default_factory=dict[str, FakeSandbox])
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict[str, Checkpoint])
    volumes: dict[str, FakeVolume] = field(default_factory=dict[str, FakeVolume])
    build: str = "fake-1"
    is_full: bool = False
    owner: "FakeEngine | None" = None


class FakeEngine:
    """`address` is where every sandbox claims to be; `kill_guest` makes one die; `fail_next` makes a create fail.

    `crun` keeps no memory; any other name does.
    """

    def __init__(
        self,
        runtimes: tuple[str, ...] = ("runsc", "crun"),
        *,
        address: str = "127.0.0.1",
        machine: FakeMachine | None = None,
    ) -> None:
        self._runtimes = runtimes
        self._address = address
        self.machine = machine or FakeMachine()
        self.volumes = FakeVolumes(self.machine.volumes, self._mounted)
        self.fail_next: str | None = None
        self.denied: dict[str, int] = {}
        self.machine_restarted = False
        self.baked = 0
        self.dropped: list[str] = []

    @property
    def runtimes(self) -> tuple[str, ...]:
        return self._runtimes

    async def open(self) -> None:
        if self.machine.owner not in (None, self):
            raise Unavailable("cannot open the engine: another server holds this state folder")
        self.machine.owner = self
        for sandbox_id in [key for key, sandbox in self.machine.sandboxes.items() if sandbox.gone.is_set()]:
            del self.machine.sandboxes[sandbox_id]

    async def close(self) -> None:
        if self.machine.owner is self:
            self.machine.owner = None

    async def create(self, spec: SandboxSpec) -> Placement:
        if spec.runtime not in self._runtimes:
            raise BadRequest(f"cannot use runtime {spec.runtime!r}: choose one of {', '.join(self._runtimes)}")
        if spec.id in self.machine.sandboxes:
            raise AlreadyExists(f"cannot create sandbox {spec.id}: that id is in use")
        if len(self.machine.sandboxes) >= self.machine.slots:
            raise NoCapacity
        if (refusal := (await self.room()).refusal(spec.resources)) is not None:
            raise NoCapacity(f"cannot place another sandbox on this machine: {refusal}")
        for mount in spec.volumes:
            self.volumes.of(mount.volume_id)
        await asyncio.sleep(0)
        if spec.restore is not None:
            self._check(spec.restore)
        if not spec.image.path:
            raise EngineFailed(f"cannot run sandbox {spec.id}: its image has no path")
        if self.fail_next is not None:
            message, self.fail_next = self.fail_next, None
            raise EngineFailed(f"cannot run sandbox {spec.id}: {message}")
        placement = Placement(spec.id, spec.runtime, self._address)
        self.machine.sandboxes[spec.id] = FakeSandbox(spec, placement, spec.egress, in_background=spec.in_background)
        return placement

    async def destroy(self, sandbox_id: str) -> None:
        await asyncio.sleep(0)
        sandbox = self.machine.sandboxes.pop(sandbox_id, None)
        if sandbox is not None:
            sandbox.end()

    async def list(self) -> list[Placement]:
        return [sandbox.placement for sandbox in self.machine.sandboxes.values() if not sandbox.gone.is_set()]

    async def room(self) -> Room:
        running = [sandbox.spec.resources for sandbox in self.machine.sandboxes.values()]
        return Room.of(self.machine.size, running, memory_overcommit=10, disk_overcommit=10)

    async def death(self, sandbox_id: str) -> None:
        sandbox = self.machine.sandboxes.get(sandbox_id)
        if sandbox is not None:
            await sandbox.gone.wait()

    async def shortage(self, sandbox_id: str) -> Shortage:
        sandbox = self.machine.sandboxes.get(sandbox_id)
        if sandbox is None or sandbox.gone.is_set():
            return Shortage.GONE
        return await sandbox.shortages.get()

    async def memory_excess(self, sandbox_id: str) -> int:
        sandbox = self.machine.sandboxes.get(sandbox_id)
        return sandbox.excess.pop(0) if sandbox is not None and sandbox.excess else 0

    async def usage(self, sandbox_id: str) -> Usage:
        resources = self._live(sandbox_id).spec.resources
        return Usage(
            cpu_seconds=0.0,
            cpu_count=resources.cpu_count,
            memory_used=MIB,
            memory_cache=0,
            memory_total=resources.memory_mb * MIB,
            disk_used=0,
            disk_total=resources.disk_mb * MIB,
        )

    async def bring_forward(self, sandbox_id: str) -> None:
        self._live(sandbox_id).in_background = False

    async def set_egress(self, sandbox_id: str, egress: EgressPolicy) -> None:
        self._live(sandbox_id).egress = egress

    async def denials(self) -> Mapping[str, int]:
        return dict(self.denied)

    def keeps_memory(self, runtime: str) -> bool:
        return runtime != "crun"

    async def checkpoint(
        self, sandbox_id: str, checkpoint_id: str, kind: SnapshotKind, *, hold: bool, durable: bool = True
    ) -> Checkpoint:
        sandbox = self._live(sandbox_id)
        if sandbox.is_still:
            raise SandboxChanging(f"cannot copy sandbox {sandbox_id}: it stands still")
        runtime = sandbox.spec.runtime
        with_memory = kind is SnapshotKind.MEMORY
        if with_memory and not self.keeps_memory(runtime):
            raise NotSupported(f"cannot keep the memory of a sandbox under {runtime}; pause it with memory: false")
        if checkpoint_id in self.machine.checkpoints:
            raise AlreadyExists(f"cannot write checkpoint {checkpoint_id}: that id is in use")
        if self.machine.is_full:
            raise NoSpace
        await asyncio.sleep(0)
        self._live(sandbox_id).is_still = hold
        build = self.machine.build if with_memory else ""
        made = Checkpoint(checkpoint_id, sandbox_id, runtime, kind, MIB, build)
        self.machine.checkpoints[checkpoint_id] = made
        return made

    async def checkpoints(self) -> Sequence[Checkpoint]:
        return list(self.machine.checkpoints.values())

    async def forget(self, checkpoint_id: str) -> None:
        self.machine.checkpoints.pop(checkpoint_id, None)

    async def bake(
        self, image: TemplateImage, tree: AsyncIterator[bytes], target: Path, *, epoch: int, disk_mb: int
    ) -> str:
        content = image.digest.encode() + b"".join([chunk async for chunk in tree])
        if self.machine.is_full:
            raise NoSpace
        target.write_bytes(content)  # noqa: ASYNC240 - it is the fake
        self.baked += 1
        return f"sha256:{sha256(content).hexdigest()}"

    async def drop_image(self, image: TemplateImage) -> None:
        self.dropped.append(image.digest)

    async def freeze(self, sandbox_id: str) -> None:
        self._live(sandbox_id).is_still = True

    async def thaw(self, sandbox_id: str) -> None:
        sandbox = self._live(sandbox_id)
        sandbox.is_still = False
        if sandbox.excess:
            sandbox.shortages.put_nowait(Shortage.GUEST)

    async def reclaim(self, sandbox_id: str) -> int:
        return MIB if self._live(sandbox_id).is_still else 0

    def is_still(self, sandbox_id: str) -> bool:
        """Whether a sandbox is frozen or held."""
        return self._live(sandbox_id).is_still

    def egress(self, sandbox_id: str) -> EgressPolicy:
        """What a test compares after `set_egress`."""
        return self._live(sandbox_id).egress

    def kill_guest(self, sandbox_id: str) -> None:
        """Let a sandbox die as if its PID 1 had ended."""
        self._live(sandbox_id).end()

    def run_short(self, sandbox_id: str, kind: Shortage, *excess: int) -> None:
        """Let a sandbox come to its memory limit; `excess` is what `memory_excess` answers, call by call."""
        sandbox = self._live(sandbox_id)
        sandbox.excess[:] = excess
        sandbox.shortages.put_nowait(kind)

    def _mounted(self) -> Sequence[str]:
        return [mount.volume_id for sandbox in self.machine.sandboxes.values() for mount in sandbox.spec.volumes]

    def _live(self, sandbox_id: str) -> FakeSandbox:
        sandbox = self.machine.sandboxes.get(sandbox_id)
        if sandbox is None or sandbox.gone.is_set():
            raise SandboxNotFound.of(sandbox_id)
        return sandbox

    def _check(self, restore: Restore) -> None:
        checkpoint = self.machine.checkpoints.get(restore.checkpoint_id)
        if checkpoint is None:
            raise CheckpointNotFound
        if restore.kind is SnapshotKind.FILESYSTEM:
            return
        if checkpoint.kind is SnapshotKind.FILESYSTEM:
            raise CheckpointUnusable("cannot restore memory: this checkpoint has files alone (memory: false)")
        if checkpoint.build != self.machine.build:
            raise CheckpointUnusable(
                f"cannot restore memory of {checkpoint.build}: this server has {self.machine.build}"
            )
