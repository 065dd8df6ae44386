"""Starting a sandbox: from a request to one that answers."""

import asyncio
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import structlog

from warren.contracts.clock import Clock, Ids
from warren.contracts.engine import Engine, Placement, Restore
from warren.contracts.store import IdempotencyKey, Store
from warren.control.launching import Launched, Launcher, Owner, start_deadline_s
from warren.control.sandbox_end import Ending
from warren.control.spares import SPARE_EGRESS, Spare, Spares
from warren.control.watches import Watches
from warren.control.work import Work
from warren.model import limits
from warren.model.errors import (
    BadRequest,
    Busy,
    EngineFailed,
    LimitReached,
    PlacementTimeout,
    Timeout,
    VolumeNotFound,
    WarrenError,
)
from warren.model.pause import Lifecycle
from warren.model.policy import NetworkPolicy
from warren.model.pool import Kind
from warren.model.project import Project
from warren.model.sandbox import Desired, EndReason, Resources, Sandbox, State
from warren.model.snapshot import SnapshotKind
from warren.model.template import Template
from warren.model.volume import VolumeMount
from warren.telemetry import steps
from warren.telemetry.meters import Meters

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """The checkpoint that a copy starts from, the sandbox that it was taken of, and the volumes that one had."""

    restore: Restore
    source_id: str
    volumes: tuple[VolumeMount, ...] = ()

    @property
    def authority_id(self) -> str | None:
        """Whose token the guest believes: nobody's after a boot."""
        return self.source_id if self.restore.kind is SnapshotKind.MEMORY else None


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What a caller asked for; None means "as the template says", and for `envs` those of a copy's source."""

    template: Template
    timeout_s: int
    runtime: str | None = None
    cpu_count: int | None = None
    memory_mb: int | None = None
    disk_mb: int | None = None
    secured: bool = True
    network: NetworkPolicy = field(default_factory=NetworkPolicy)
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    envs: Mapping[str, str] | None = field(default_factory=dict[str, str])
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    origin: Origin | None = None
    key: IdempotencyKey | None = None
    volumes: tuple[VolumeMount, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A request that has been let in: its row, the spare that becomes it, if there is one, the loop's time by which it
    has to run, and whether its start `restores` a checkpoint: a copy's, or the memory of its template."""

    sandbox: Sandbox
    request: StartRequest
    kind: Kind
    spare: Spare | None
    until: float
    restores: bool


class Starting:
    """Brings sandboxes up, a bounded number at a time."""

    def __init__(
        self,
        *,
        server_id: str,
        engine: Engine,
        launcher: Launcher,
        spares: Spares,
        store: Store,
        clock: Clock,
        ids: Ids,
        watches: Watches,
        ending: Ending,
        work: Work,
        meters: Meters,
        processors: int,
    ) -> None:
        self._server_id, self._engine, self._launcher, self._spares = server_id, engine, launcher, spares
        self._store, self._clock, self._ids = store, clock, ids
        self._watches, self._ending, self._work = watches, ending, work
        self._meters = meters
        at_once = processors + limits.CREATES_BESIDE
        self._places, self._restores_places = asyncio.Semaphore(at_once), asyncio.Semaphore(at_once)
        self._waiting = self._at_work = 0

    @property
    def is_idle(self) -> bool:
        """Nobody waits for a sandbox that has to be started."""
        return not (self._at_work or self._waiting)

    async def start(self, project: Project, request: StartRequest) -> Sandbox:
        """Create a sandbox and return it running.

        Raises BadRequest, ResourceTooLarge, LimitReached, Busy, NoCapacity, PlacementTimeout, ServicesNotReady,
        EngineFailed, and IdempotencyInFlight. Without a spare it waits for its turn, before anything is made; from then
        on it goes to its end though the caller goes away: a retry with the same key then finds the sandbox.
        """
        since, runtime = time.perf_counter(), self._runtime(request)
        with steps.listening(partial(self._step_done, runtime)):
            with self._failure_counted(runtime):
                plan = await self._admitted(project, request)
            return await self._work.finish(self._measured(plan, since), f"start {plan.sandbox.id}")

    def _step_done(self, runtime: str, name: str, seconds: float) -> None:
        self._meters.create_step_seconds.labels(self._known(runtime), name).observe(seconds)

    async def _admitted(self, project: Project, request: StartRequest) -> Plan:
        """With a spare, or else with a place to start, which `_place` gives back."""
        kind = self._kind(project, request)
        as_it_comes = request.origin is None and not request.volumes  # a spare has neither
        spare = self._spares.claim(kind, request.template) if as_it_comes else None
        restores = request.origin is not None or self._launcher.restores(request.template, kind, request.volumes)
        until = asyncio.get_running_loop().time() + start_deadline_s(restores=restores)
        if spare is None:
            await self._take_place(until, restores=restores)
        try:
            with steps.step("admit"):
                sandbox = await self._counted(project, request, kind, spare)
                return Plan(sandbox, request, kind, spare, until, restores)
        except BaseException:
            if spare is None:
                self._places_of(restores=restores).release()
            else:
                self._spares.give_back(spare)
            raise

    def _places_of(self, *, restores: bool) -> asyncio.Semaphore:
        """Restores have their own: much memory may be read back for minutes, for which no boot has to wait."""
        return self._restores_places if restores else self._places

    async def _take_place(self, until: float, *, restores: bool) -> None:
        """In the order of asking: who is let in first is done first. Raises Busy, PlacementTimeout."""
        if self._waiting >= limits.CREATES_WAITING:
            raise Busy("cannot queue another create: too many are waiting; try again in a moment")
        self._waiting += 1
        try:
            with steps.step("wait"):
                async with asyncio.timeout_at(until):
                    await self._places_of(restores=restores).acquire()
        except TimeoutError as error:
            raise PlacementTimeout("cannot start a sandbox in time: too many are waiting; try again later") from error
        finally:
            self._waiting -= 1

    def _kind(self, project: Project, request: StartRequest) -> Kind:
        runtime = self._runtime(request)
        if runtime not in self._engine.runtimes:
            known = ", ".join(self._engine.runtimes)
            raise BadRequest(f"cannot use runtime {runtime!r}; this server has: {known}")
        template = request.template
        kind = Kind(template.id, template.digest, runtime, sized(request, project), template.build_id)
        if request.origin is not None and (runtime, kind.resources) != (
            request.template.runtime,
            request.template.resources,
        ):
            raise BadRequest("cannot change runtime or sizes of a copy: it starts as its snapshot was taken")
        return kind

    async def _counted(self, project: Project, request: StartRequest, kind: Kind, spare: Spare | None) -> Sandbox:
        sandbox = self._planned(project, request, kind, self._ids.sandbox_id() if spare is None else spare.id)
        try:
            added = await self._store.add_sandbox(sandbox, project.limits.sandboxes, request.key)
        except VolumeNotFound as error:
            raise BadRequest(f"cannot start the sandbox: {error.message}") from error
        if not added:
            raise LimitReached(
                f"cannot start another sandbox: the project's limit of {project.limits.sandboxes} sandboxes at once "
                "(sandboxes) is reached; kill one or raise the limit"
            )
        return sandbox

    def _planned(self, project: Project, request: StartRequest, kind: Kind, sandbox_id: str) -> Sandbox:
        template, now = request.template, self._clock.now()
        return Sandbox(
            id=sandbox_id,
            project_id=project.id,
            template_id=template.id,
            root_template_id=template.root,
            alias=template.names[0] if template.names else None,
            runtime=kind.runtime,
            resources=kind.resources,
            state=State.CREATING,
            desired=Desired.RUNNING,
            created_at=now,
            started_at=now,
            expires_at=now + timedelta(seconds=request.timeout_s),
            timeout_s=request.timeout_s,
            secured=request.secured,
            network=request.network,
            metadata=request.metadata,
            lifecycle=request.lifecycle,
            digest=template.digest,
            default_user=template.default_user,
            default_workdir=template.default_workdir,
            template_envs=template.envs,
            volumes=request.volumes,
            server_id=self._server_id,
        )

    def _runtime(self, request: StartRequest) -> str:
        return request.runtime or request.template.runtime or self._engine.runtimes[0]

    async def _measured(self, plan: Plan, since: float) -> Sandbox:
        with self._failure_counted(plan.kind.runtime):
            running = await self._bring_up(plan)
        self._meters.creates.labels(running.runtime, "ok").inc()
        self._meters.create_seconds.labels(running.runtime).observe(time.perf_counter() - since)
        return running

    @contextmanager
    def _failure_counted(self, runtime: str) -> Generator[None]:
        try:
            yield
        except Exception as error:
            code = error.code if isinstance(error, WarrenError) else WarrenError.code
            self._meters.creates.labels(self._known(runtime), code).inc()
            raise

    def _known(self, runtime: str) -> str:
        """A runtime that we do not have is a word of the caller's: it must not become a label."""
        return runtime if runtime in self._engine.runtimes else "unknown"

    async def _bring_up(self, plan: Plan) -> Sandbox:
        sandbox = plan.sandbox
        try:
            async with asyncio.timeout_at(plan.until):
                placement = await self._claimed(plan) or await self._started(plan)
                now = self._clock.now()
                ends = now + timedelta(seconds=plan.request.timeout_s)
                with steps.step("store"):
                    running = await self._store.mark_running(sandbox.id, now, ends)
        except (TimeoutError, Timeout) as error:
            await self._ending.discard(sandbox.id, EndReason.FAILED_TO_START)
            why = str(error) or f"it took longer than {start_deadline_s(restores=plan.restores):g} s"
            raise PlacementTimeout(f"cannot start sandbox {sandbox.id} in time: {why}; try again later") from error
        except BaseException:
            await asyncio.shield(self._ending.discard(sandbox.id, EndReason.FAILED_TO_START))
            raise
        if running is None:
            await self._ending.discard(sandbox.id, EndReason.KILLED)
            raise EngineFailed(f"cannot hand out sandbox {sandbox.id}: it was killed while it started")
        self._watches.watch(running, placement.address)
        return running

    async def _claimed(self, plan: Plan) -> Placement | None:
        """The spare as this sandbox: the owner's rules first, then his words. None, and
        a place to start, when it does not answer any more."""
        if plan.spare is None:
            return None
        try:
            egress = plan.sandbox.network.egress()
            if egress != SPARE_EGRESS:
                await self._engine.set_egress(plan.spare.id, egress)
            template, owner = plan.request.template, _owner(plan.request)
            await self._launcher.introduce(plan.spare.placement, template, owner, limits.POOL_CLAIM_DEADLINE_S)
        except WarrenError as error:
            log.warning("spare not usable; starting another", sandbox=plan.spare.id, error=error.message)
            await self._engine.destroy(plan.spare.id)
            await self._take_place(plan.until, restores=plan.restores)
            return None
        return plan.spare.placement

    async def _started(self, plan: Plan) -> Placement:
        self._at_work += 1
        try:
            launched = await self._place(plan)
            owner = _owner(plan.request)
            await self._launcher.greet(launched, plan.request.template, owner, limits.GUEST_BOOT_DEADLINE_S)
            return launched.placement
        finally:
            self._at_work -= 1

    async def _place(self, plan: Plan) -> Launched:
        try:
            return await self._spares.placed(partial(self._launch, plan))
        finally:
            self._places_of(restores=plan.restores).release()

    async def _launch(self, plan: Plan) -> Launched:
        sandbox, request, egress = plan.sandbox, plan.request, plan.sandbox.network.egress()
        template, origin, volumes = request.template, request.origin, request.volumes
        if origin is None:
            return await self._launcher.start_new(sandbox.id, template, plan.kind, egress, volumes)
        placement = await self._launcher.start(
            sandbox.id, template, plan.kind, egress, restore=origin.restore, volumes=volumes
        )
        return Launched(placement, origin.authority_id, needs_services=origin.authority_id is None)


def _owner(request: StartRequest) -> Owner:
    origin = request.origin
    boots = origin is not None and origin.restore.kind is SnapshotKind.FILESYSTEM
    return Owner(request.secured, request.envs, is_copy=origin is not None, recalls_envs=boots and request.envs is None)


def sized(request: StartRequest, project: Project) -> Resources:
    """The sizes of a new sandbox. Raises BadRequest below the minima, ResourceTooLarge above the project's limits."""
    template = request.template.resources
    return project.limits.sized(
        template.cpu_count if request.cpu_count is None else request.cpu_count,
        template.memory_mb if request.memory_mb is None else request.memory_mb,
        template.disk_mb if request.disk_mb is None else request.disk_mb,
        template.pids,
    )
