"""Putting a sandbox to sleep.

Each step can be the last one before the server is killed, and the next server finds its way from the row alone:

    running --claim--> pausing --checkpoint written, the sandbox held--> paused --destroyed--> asleep

Until the row says `paused` the sandbox itself is the truth: it is thawed and runs on. From then on it is what lies
on disk, and what is left of the sandbox is destroyed before anything is started from it.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

import structlog

from warren.contracts.clock import Clock
from warren.contracts.engine import Engine, Placement
from warren.contracts.store import Store
from warren.control.checkpoints import Checkpoints
from warren.control.guest_envs import GuestEnvs
from warren.control.journals import Journals
from warren.control.live import LiveSandboxes
from warren.control.sandbox_end import Ending
from warren.control.standstills import Standstills
from warren.control.watches import Watches
from warren.control.work import Work
from warren.model import limits
from warren.model.errors import (
    BadRequest,
    EngineFailed,
    GuestSilent,
    SandboxChanging,
    SandboxNotFound,
    SandboxPaused,
    WarrenError,
)
from warren.model.observation import Level, LogEntry
from warren.model.pause import Pause, PauseCause, PauseKind
from warren.model.project import Project
from warren.model.sandbox import EndReason, Sandbox, State
from warren.model.snapshot import SnapshotKind
from warren.telemetry.meters import Meters

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PauseRequest:
    """memory False keeps the files alone. durable: refuse what ends with the machine. strict: refuse a silent guest."""

    memory: bool = True
    durable: bool = False
    strict: bool = False


class Pausing:
    def __init__(
        self,
        *,
        engine: Engine,
        store: Store,
        clock: Clock,
        live: LiveSandboxes,
        standstills: Standstills,
        envs: GuestEnvs,
        watches: Watches,
        checkpoints: Checkpoints,
        ending: Ending,
        work: Work,
        meters: Meters,
        journals: Journals,
    ) -> None:
        self._engine, self._store, self._clock, self._envs = engine, store, clock, envs
        self._live, self._standstills, self._watches = live, standstills, watches
        self._checkpoints, self._ending, self._work, self._meters = checkpoints, ending, work, meters
        self._journals = journals
        self._at_work = Counter[str]()

    async def pause(self, project: Project, sandbox: Sandbox, request: PauseRequest) -> None:
        """Pause by its owner's wish; returns when it sleeps. Goes on to its end when the caller goes away.

        Raises SandboxPaused, SandboxChanging, BadRequest (memory under a runtime that keeps none durably),
        LimitReached, GuestSilent, NoSpace, Busy, EngineFailed. After an error the sandbox runs on.
        """
        if sandbox.state.is_asleep:
            raise await self._why_not(sandbox)
        kind = kind_of(request, keeps_memory=self._engine.keeps_memory(sandbox.runtime), runtime=sandbox.runtime)
        if kind is not PauseKind.FROZEN:
            await self._checkpoints.check_room(project)
        needs_guest = request.strict or kind is PauseKind.FILESYSTEM
        pause = Pause(None, kind, PauseCause.OWNER, self._clock.now())
        await self._work.finish(self._fall_asleep(sandbox, pause, needs_guest=needs_guest), f"pause {sandbox.id}")

    async def at_deadline(self, sandbox: Sandbox) -> None:
        """Pause in place of an end. What cannot go to disk is frozen, so that nothing is lost; and the log says so."""
        wanted = PauseRequest(memory=sandbox.lifecycle.auto_pause_memory)
        kind = kind_of(wanted, keeps_memory=self._engine.keeps_memory(sandbox.runtime), runtime=sandbox.runtime)
        pause = Pause(None, kind, PauseCause.DEADLINE, self._clock.now())
        try:
            if kind is not PauseKind.FROZEN:
                await self.check_room(sandbox)
            await self._fall_asleep(sandbox, pause)
        except (SandboxPaused, SandboxChanging, SandboxNotFound):
            return
        except WarrenError as error:
            await self._note(sandbox, Level.WARN, f"cannot pause to disk at the deadline, freezing: {error.message}")
            await self._freeze_or_end(sandbox, replace(pause, kind=PauseKind.FROZEN))

    async def idle(self, sandbox: Sandbox, kind: PauseKind, still: Callable[[], bool]) -> None:
        """Pause because nobody uses it, if that is `still` so; SandboxChanging if not.

        Raises what `pause` raises; a silent guest stays where it is.
        """
        if sandbox.id in self._standstills:
            raise SandboxChanging(f"cannot pause sandbox {sandbox.id}: it is being copied")
        if kind is not PauseKind.FROZEN:
            await self.check_room(sandbox)
        pause = Pause(None, kind, PauseCause.IDLE, self._clock.now())
        await self._fall_asleep(sandbox, pause, still, needs_guest=True)

    async def check_room(self, sandbox: Sandbox) -> None:
        """Raises LimitReached when its project may keep no more on disk."""
        project = await self._store.project(sandbox.project_id)
        if project is not None:
            await self._checkpoints.check_room(project)

    @contextmanager
    def at_work(self, sandbox_id: str) -> Generator[None]:
        """While anybody here pauses, resumes or recovers a sandbox, `is_at_work` says so.

        Nobody begins to recover it then, and no pause begins. One may be at it and another be told so meanwhile.
        """
        self._at_work[sandbox_id] += 1
        try:
            yield
        finally:
            self._at_work[sandbox_id] -= 1
            if not self._at_work[sandbox_id]:
                del self._at_work[sandbox_id]

    def is_at_work(self, sandbox_id: str) -> bool:
        return sandbox_id in self._at_work

    async def recover(self, sandbox: Sandbox, placement: Placement | None) -> bool:
        """Make a sandbox whole whose pause or resume broke off, or that slept while no server was there.

        False when nothing is left of it.
        """
        with self.at_work(sandbox.id):
            return await self._recover(sandbox, placement)

    async def _recover(self, sandbox: Sandbox, placement: Placement | None) -> bool:
        pause = sandbox.pause
        if pause is None:
            return False
        if sandbox.state is State.PAUSING and placement is not None:
            return await self._run_on(sandbox, placement.address)
        if is_frozen(sandbox):
            return placement is not None and await self._stay_frozen(sandbox)
        # What is paused can be resumed at any moment, but for this: what is cleared below is no later life of it.
        if sandbox.state is State.PAUSED:
            if await self._store.move(sandbox.id, frozenset({State.PAUSED}), State.RESUMING) is None:
                return True
        whole = None if pause.checkpoint_id is None else await self._checkpoints.find(pause.checkpoint_id)
        if whole is None:
            return False
        if whole.unreadable:  # it may be another version's, whose server may come back
            log.warning("what a sandbox sleeps in cannot be read", sandbox=sandbox.id, reason=whole.unreadable)
        await self._engine.destroy(sandbox.id)
        self._live.doze(sandbox.id)
        if sandbox.state is State.PAUSING:
            await self._store.mark_paused(sandbox.id, whole.bytes)
        else:
            await self._store.move(sandbox.id, frozenset({State.RESUMING}), State.PAUSED)
        return True

    async def _stay_frozen(self, sandbox: Sandbox) -> bool:
        await self._engine.freeze(sandbox.id)
        self._live.doze(sandbox.id)
        await self._store.move(sandbox.id, frozenset({State.RESUMING}), State.PAUSED)
        return True

    async def _fall_asleep(
        self, sandbox: Sandbox, pause: Pause, still: Callable[[], bool] = lambda: True, *, needs_guest: bool = False
    ) -> None:
        """needs_guest: refuse a silent one, which does not answer either once it sleeps."""
        await self._check_alone(sandbox)
        with self._meters.sleeping("pause", sandbox.runtime):
            async with self._turn(sandbox, pause.kind):  # until then it runs, and is told nothing
                silent = not await self._envs.retain(sandbox.id)
                if silent and needs_guest:
                    raise await self._why_not(sandbox, GuestSilent())
                await self._check_alone(sandbox)
                await self._write_down(sandbox, replace(pause, guest_silent=silent), still)
        if pause.kind is not PauseKind.FROZEN:
            with self.at_work(sandbox.id):
                await self._clear(sandbox.id)
        await self._note(sandbox, Level.INFO, f"sandbox paused: {pause.kind} by {pause.by}")

    async def _check_alone(self, sandbox: Sandbox) -> None:
        """Its row may say that it runs, while it is still being thawed."""
        if self.is_at_work(sandbox.id):
            refusal = SandboxChanging(f"cannot pause sandbox {sandbox.id}: a pause or a resume of it is under way")
            raise await self._why_not(sandbox, refusal)

    @asynccontextmanager
    async def _turn(self, sandbox: Sandbox, kind: PauseKind) -> AsyncGenerator[None]:
        if kind is PauseKind.FROZEN:  # nothing is written
            yield
            return
        async with self._checkpoints.turn(sandbox.id):
            yield

    async def _write_down(self, sandbox: Sandbox, pause: Pause, still: Callable[[], bool]) -> None:
        with self.at_work(sandbox.id), self._checkpoints.new() as checkpoint_id:
            if pause.kind is not PauseKind.FROZEN:
                pause = replace(pause, checkpoint_id=checkpoint_id)
                if not pause.guest_silent:
                    await self._read_journal(sandbox.id)
            claimed = await self._store.claim_pause(sandbox.id, pause)
            if claimed is None:
                raise await self._why_not(sandbox)
            if not still():  # its route stands: what came meanwhile notices nothing
                await self._store.mark_awake(sandbox.id, claimed.expires_at)
                raise SandboxChanging(f"cannot pause sandbox {sandbox.id}: it is in use again")
            route = self._live.find(sandbox.id)
            self._live.remove(sandbox.id)
            self._live.doze(sandbox.id)
            try:
                async with asyncio.timeout(limits.CHECKPOINT_DEADLINE_S):
                    size = await self._stand_still(sandbox.id, pause)
                paused = await self._store.mark_paused(sandbox.id, size)
            except (WarrenError, TimeoutError) as error:  # a cancellation is the server's end: the next one recovers
                if not await self._run_on(claimed, None if route is None else route.address):
                    await self._ending.end(sandbox.id, EndReason.DIED)
                if isinstance(error, TimeoutError):
                    raise EngineFailed(f"cannot pause sandbox {sandbox.id} in time; it runs on") from error
                raise
            if paused is None:  # killed meanwhile
                await self._checkpoints.forget(checkpoint_id)
                raise SandboxNotFound.of(sandbox.id)

    async def _read_journal(self, sandbox_id: str) -> None:
        """While it answers: a boot from its files begins another, and what sleeps is asked nothing."""
        route = self._live.find(sandbox_id)
        if route is not None:
            with contextlib.suppress(WarrenError):
                await self._journals.fetch(route)

    async def _clear(self, sandbox_id: str) -> None:
        """Its room is free when a pause returns; whoever wakes or kills it meanwhile waits for that."""
        try:
            await self._engine.destroy(sandbox_id)
        except WarrenError as error:  # it is paused all the same; a resume, a kill or the sweep tries again
            log.error("what slept is not cleared yet", sandbox=sandbox_id, error=error.message)

    async def _stand_still(self, sandbox_id: str, pause: Pause) -> int:
        if pause.checkpoint_id is None:
            await self._engine.freeze(sandbox_id)
            return 0
        kind = SnapshotKind(pause.kind.value)
        return (await self._engine.checkpoint(sandbox_id, pause.checkpoint_id, kind, hold=True)).bytes

    async def _run_on(self, sandbox: Sandbox, address: str | None) -> bool:
        """Take a pause back that is not written down. False when the sandbox is dead.

        One that cannot be thawed now, or whose address nobody knows here, is taken over by the next sweep.
        """
        awake = await self._store.mark_awake(sandbox.id, sandbox.expires_at)
        if awake is None:  # killed meanwhile; or it was written down, and only the answer got lost
            return True
        try:
            await self._engine.thaw(sandbox.id)
        except SandboxNotFound:
            return False
        if address is not None:
            self._watches.watch(awake, address)
        if sandbox.pause is not None and sandbox.pause.checkpoint_id is not None:
            await self._checkpoints.forget(sandbox.pause.checkpoint_id)
        return True

    async def _freeze_or_end(self, sandbox: Sandbox, pause: Pause) -> None:
        try:
            await self._fall_asleep(sandbox, pause)
        except (SandboxPaused, SandboxChanging, SandboxNotFound):
            return
        except WarrenError as error:
            await self._note(sandbox, Level.ERROR, f"cannot pause at the deadline, ending: {error.message}")
            await self._ending.end(sandbox.id, EndReason.EXPIRED)

    async def _why_not(self, sandbox: Sandbox, refusal: WarrenError | None = None) -> WarrenError:
        """What keeps a sandbox from being paused, as it is now: `refusal` if it runs."""
        now = await self._store.sandbox(sandbox.project_id, sandbox.id)
        if now is None or now.state is State.GONE:
            return SandboxNotFound.of(sandbox.id)
        if now.state.is_asleep:
            return SandboxPaused(f"cannot pause sandbox {sandbox.id}: it is paused already")
        if refusal is not None and now.state is State.RUNNING:
            return refusal
        return SandboxChanging(f"cannot pause sandbox {sandbox.id}: it is being started or ended")

    async def _note(self, sandbox: Sandbox, level: Level, message: str) -> None:
        log.info(message, sandbox=sandbox.id)
        with contextlib.suppress(WarrenError):
            await self._store.add_logs(sandbox.id, [LogEntry(self._clock.now(), level, "warren", message)])


def is_frozen(sandbox: Sandbox) -> bool:
    """Whether its processes are there, stopped: it ends with them."""
    return sandbox.pause is not None and sandbox.pause.kind is PauseKind.FROZEN


def kind_of(request: PauseRequest, *, keeps_memory: bool, runtime: str) -> PauseKind:
    """How a sandbox is to sleep. Raises BadRequest for what its runtime cannot do: it never does less, silently."""
    if not request.memory:
        return PauseKind.FILESYSTEM
    if keeps_memory:
        return PauseKind.MEMORY
    if request.durable:
        raise BadRequest(
            f"cannot keep memory on disk under {runtime}: only a frozen pause, which ends with the machine, keeps it "
            "there; leave durable out, or pause with memory: false"
        )
    return PauseKind.FROZEN
