"""Waking a sandbox: what was true when it fell asleep is checked again, then it goes on where it was."""

import asyncio
import contextlib
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial

import structlog

from warren.contracts.clock import Clock
from warren.contracts.engine import Engine, Placement, Restore
from warren.contracts.store import Store
from warren.control.checkpoints import Checkpoints
from warren.control.journals import Journals
from warren.control.launching import Launcher, Owner, start_deadline_s
from warren.control.pausing import Pausing
from warren.control.sandbox_end import Ending
from warren.control.spares import Spares
from warren.control.templates import with_services
from warren.control.watches import Watches
from warren.control.work import Work
from warren.model import limits
from warren.model.errors import (
    BadRequest,
    EngineFailed,
    Forbidden,
    GuestSilentAtPause,
    PlacementTimeout,
    SandboxChanging,
    SandboxNotFound,
    SandboxPaused,
    Timeout,
    WarrenError,
)
from warren.model.observation import Level, LogEntry
from warren.model.pause import Pause, PauseCause, PauseKind
from warren.model.pool import Kind
from warren.model.project import Project
from warren.model.sandbox import EndReason, Sandbox, State
from warren.model.snapshot import SnapshotKind
from warren.model.template import template_of
from warren.telemetry.meters import Meters

log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 0.05


class Resuming:
    def __init__(
        self,
        *,
        engine: Engine,
        launcher: Launcher,
        spares: Spares,
        store: Store,
        clock: Clock,
        watches: Watches,
        checkpoints: Checkpoints,
        pausing: Pausing,
        ending: Ending,
        work: Work,
        meters: Meters,
        journals: Journals,
    ) -> None:
        self._engine, self._launcher, self._spares, self._store, self._clock = engine, launcher, spares, store, clock
        self._watches = watches
        self._checkpoints, self._pausing, self._ending = checkpoints, pausing, ending
        self._work, self._meters, self._journals = work, meters, journals
        self._places = asyncio.Semaphore(limits.RESUMES_IN_FLIGHT)
        self._under_way: dict[tuple[str, bool, bool], asyncio.Future[Sandbox]] = {}

    async def resume(
        self, project: Project, sandbox: Sandbox, timeout_s: int | None, *, memory: bool = True
    ) -> Sandbox:
        """Wake a sandbox that sleeps, or is about to; it lives for `timeout_s` from then on. None: out of what idleness
        did and nothing else, as if it had run; SandboxPaused when it has been paused otherwise by then.

        Concurrent calls join the first one, and it goes on to its end when they go away. memory False boots it from
        its files; whoever wishes otherwise than the first waits, and finds it awake or has its turn. Raises
        SandboxChanging, GuestSilentAtPause, CheckpointUnusable, CheckpointNotFound, LimitReached, Forbidden (it is
        larger than its project may have now), NoCapacity, PlacementTimeout, ServicesNotReady, EngineFailed; after an
        error it sleeps on.
        """
        wish = sandbox.id, memory, timeout_s is None
        under_way = self._under_way.get(wish)
        if under_way is None:
            under_way = self._work.begin(self._wake(project, sandbox, timeout_s, memory), f"resume {sandbox.id}")
            self._under_way[wish] = under_way
            under_way.add_done_callback(lambda _: self._under_way.pop(wish, None))
        return await asyncio.shield(under_way)

    async def wake_idle(self, sandbox: Sandbox) -> Sandbox:
        """Wake a sandbox that idleness put to sleep, for its owner to find it as if it had run: its deadline stays.

        Raises what `resume` raises; SandboxPaused when it sleeps for another reason by now.
        """
        project = await self._store.project(sandbox.project_id)
        if project is None:
            raise SandboxNotFound.of(sandbox.id)
        return await self.resume(project, sandbox, None)

    async def _wake(self, project: Project, sandbox: Sandbox, timeout_s: int | None, memory: bool) -> Sandbox:
        for _ in range(limits.CHANGE_TRIES):
            sandbox = await self._asleep(sandbox)
            if sandbox.state is State.RUNNING or sandbox.pause is None:
                return sandbox
            if timeout_s is None and not sandbox.is_idle:  # it may have been awake in between, and paused by its owner
                raise SandboxPaused(f"cannot wake sandbox {sandbox.id}: it has been paused meanwhile; connect to it")
            awake = await self._woken(project, sandbox, sandbox.pause, timeout_s, memory)
            if awake is not None:
                return awake
        raise SandboxChanging(f"cannot resume sandbox {sandbox.id}: its state changed meanwhile; try again")

    async def _woken(
        self, project: Project, sandbox: Sandbox, pause: Pause, timeout_s: int | None, memory: bool
    ) -> Sandbox | None:
        """None when it does not sleep like that any more."""
        check_sizes(sandbox, project)
        kind = restored_kind(pause, memory=memory)
        with self._meters.sleeping("resume", sandbox.runtime), self._pausing.at_work(sandbox.id):
            claimed = await self._store.claim_resume(project.id, sandbox.id, project.limits.sandboxes)
            if claimed is None:
                return None
            if claimed.pause != pause:
                await self._store.move(sandbox.id, frozenset({State.RESUMING}), State.PAUSED)
                return None
            try:
                async with asyncio.timeout(start_deadline_s(restores=kind is not None)), self._place_for(kind):
                    placement = await self._place(claimed, kind)
                    await self._introduce(claimed, placement, kind)
            except (WarrenError, TimeoutError) as error:
                await self._sleep_on(claimed, pause)
                if isinstance(error, TimeoutError | Timeout):
                    raise PlacementTimeout(f"cannot resume sandbox {sandbox.id} in time; it stays paused") from error
                raise
            return await self._hand_out(claimed, placement, timeout_s)

    def _place_for(self, kind: SnapshotKind | None) -> AbstractAsyncContextManager[None]:
        """A thaw is done at once: it does not wait behind what is read from disk for minutes."""
        return contextlib.nullcontext() if kind is None else self._places

    async def _asleep(self, sandbox: Sandbox) -> Sandbox:
        """Wait for a pause that is under way, or another's wake. Returns it paused, or running if that was faster."""
        seen = sandbox.state
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.WAKE_DEADLINE_S):
                while True:
                    row = await self._store.sandbox(sandbox.project_id, sandbox.id)
                    if row is None or row.state is State.GONE:
                        raise SandboxNotFound.of(sandbox.id)
                    seen = row.state
                    if row.state in (State.PAUSED, State.RUNNING):
                        return row
                    if row.state is State.KILLING:
                        raise SandboxChanging(f"cannot connect to sandbox {sandbox.id}: it is being killed")
                    await asyncio.sleep(_LOOK_EVERY_S)
        doing = "woken by another call" if seen is State.RESUMING else "paused"
        raise SandboxChanging(f"cannot resume sandbox {sandbox.id} yet: it is still being {doing}; try again later")

    async def _place(self, sandbox: Sandbox, kind: SnapshotKind | None) -> Placement:
        if kind is None or sandbox.pause is None or sandbox.pause.checkpoint_id is None:
            await self._engine.set_egress(sandbox.id, sandbox.network.egress())  # they may have changed since it froze
            await self._engine.thaw(sandbox.id)
            return await self._placement(sandbox.id)
        await self._engine.destroy(sandbox.id)  # what a pause may have left held: nothing runs in two places
        template = template_of(sandbox)
        shape = Kind(template.id, template.digest, sandbox.runtime, sandbox.resources)
        restore = Restore(sandbox.pause.checkpoint_id, kind)
        egress, volumes = sandbox.network.egress(), sandbox.volumes
        start = partial(self._launcher.start, sandbox.id, template, shape, egress, restore=restore, volumes=volumes)
        return await self._spares.placed(start)

    async def _placement(self, sandbox_id: str) -> Placement:
        for placement in await self._engine.list():
            if placement.id == sandbox_id:
                return placement
        raise EngineFailed(f"cannot resume sandbox {sandbox_id}: it was frozen in memory and has died")

    async def _introduce(self, sandbox: Sandbox, placement: Placement, kind: SnapshotKind | None) -> None:
        """The same identity as before. Its environment was never here: the guest has it, in memory or in its files."""
        owner = Owner(sandbox.secured, envs=None, recalls_envs=kind is SnapshotKind.FILESYSTEM)
        template = template_of(sandbox)
        await self._launcher.introduce(placement, template, owner, limits.GUEST_BOOT_DEADLINE_S)
        if kind is SnapshotKind.FILESYSTEM:
            self._journals.begin_anew(sandbox.id)
            template = await with_services(self._store, template)
            await self._launcher.serve(placement, template, secured=sandbox.secured)

    async def _sleep_on(self, sandbox: Sandbox, pause: Pause) -> None:
        if pause.kind is PauseKind.FROZEN:
            try:
                await self._engine.freeze(sandbox.id)
            except SandboxNotFound:
                await self._ending.end_for_sure(sandbox.id, EndReason.DIED)
                return
        else:
            await self._engine.destroy(sandbox.id)
        await self._store.move(sandbox.id, frozenset({State.RESUMING}), State.PAUSED)

    async def _hand_out(self, sandbox: Sandbox, placement: Placement, timeout_s: int | None) -> Sandbox:
        expires_at = self._clock.now() + timedelta(seconds=timeout_s or 0)
        if sandbox.pause is not None and sandbox.pause.by is PauseCause.IDLE:
            expires_at = max(expires_at, sandbox.expires_at)
        awake = await self._store.mark_awake(sandbox.id, expires_at)
        if awake is None:
            await self._engine.destroy(sandbox.id)
            raise SandboxNotFound.of(sandbox.id)  # killed while it woke up
        self._watches.watch(awake, placement.address)
        if sandbox.pause is not None and sandbox.pause.checkpoint_id is not None:
            self._work.spawn(self._checkpoints.forget(sandbox.pause.checkpoint_id), f"forget what woke {sandbox.id}")
        await self._store.add_logs(sandbox.id, [LogEntry(self._clock.now(), Level.INFO, "warren", "sandbox resumed")])
        return awake


def restored_kind(pause: Pause, *, memory: bool) -> SnapshotKind | None:
    """What to start from; None for a frozen sandbox, which is only thawed. Raises GuestSilentAtPause, BadRequest."""
    if pause.kind is PauseKind.FROZEN:
        if not memory:
            raise BadRequest(
                "cannot boot this sandbox from its files: it is frozen in memory; resume it, then pause it with "
                "memory: false"
            )
        return None
    if pause.kind is PauseKind.FILESYSTEM or not memory:
        return SnapshotKind.FILESYSTEM
    if pause.guest_silent:
        raise GuestSilentAtPause
    return SnapshotKind.MEMORY


def check_sizes(sandbox: Sandbox, project: Project) -> None:
    """A project whose limits were lowered meanwhile cannot have it back as large as it was. Raises Forbidden."""
    have, may = sandbox.resources, project.limits
    for name, value, limit in (
        ("cpuCount", have.cpu_count, may.cpu_count),
        ("memoryMB", have.memory_mb, may.memory_mb),
        ("diskMB", have.disk_mb, may.disk_mb),
    ):
        if value > limit:
            raise Forbidden(f"cannot resume sandbox {sandbox.id}: its {name} {value} is above the limit of {limit} now")
