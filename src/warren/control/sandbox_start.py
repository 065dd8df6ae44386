"""Starting a sandbox: from a request to one that answers."""

import asyncio
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from warren.contracts.clock import Clock, Ids
from warren.contracts.engine import Engine, Placement, SandboxSpec
from warren.contracts.guest import Guest, GuestIdentity
from warren.contracts.store import Store
from warren.control.sandbox_end import Ending
from warren.control.supervision import Supervision
from warren.control.templates import TemplateFiles
from warren.control.tokens import Tokens
from warren.control.work import Work
from warren.model import limits
from warren.model.errors import (
    BadRequest,
    Busy,
    EngineFailed,
    LimitReached,
    PlacementTimeout,
    ResourceTooLarge,
    Timeout,
    WarrenError,
)
from warren.model.policy import NetworkPolicy
from warren.model.project import Project
from warren.model.sandbox import Desired, EndReason, Resources, Sandbox, State
from warren.model.template import Template
from warren.telemetry.meters import Meters

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What a caller asked for; None means "as the template says"."""

    template: Template
    timeout_s: int
    runtime: str | None = None
    cpu_count: int | None = None
    memory_mb: int | None = None
    disk_mb: int | None = None
    secured: bool = True
    network: NetworkPolicy = field(default_factory=NetworkPolicy)
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    envs: Mapping[str, str] = field(default_factory=dict[str, str])


class Starting:
    """Brings sandboxes up, a bounded number at a time."""

    def __init__(
        self,
        *,
        server_id: str,
        engine: Engine,
        guest: Guest,
        store: Store,
        clock: Clock,
        ids: Ids,
        tokens: Tokens,
        images: TemplateFiles,
        supervision: Supervision,
        ending: Ending,
        work: Work,
        meters: Meters,
    ) -> None:
        self._server_id, self._engine, self._guest, self._store = server_id, engine, guest, store
        self._clock, self._ids, self._tokens = clock, ids, tokens
        self._images, self._supervision, self._ending, self._work = images, supervision, ending, work
        self._meters = meters
        self._places = asyncio.Semaphore(limits.CREATES_IN_FLIGHT)
        self._waiting = 0

    async def start(self, project: Project, request: StartRequest) -> Sandbox:
        """Create a sandbox and return it running.

        Raises BadRequest, ResourceTooLarge, LimitReached, Busy, NoCapacity, PlacementTimeout, EngineFailed. Goes on
        to its end when the caller goes away: a retry with the same Idempotency-Key then finds the sandbox.
        """
        since = time.perf_counter()
        with self._failure_counted(self._runtime(request)):
            sandbox = await self._admitted(project, request)
        return await self._work.finish(self._measured(sandbox, request, since), f"start {sandbox.id}")

    async def _admitted(self, project: Project, request: StartRequest) -> Sandbox:
        sandbox = self._planned(project, request)
        if self._waiting >= limits.CREATES_WAITING:
            raise Busy("cannot queue another create: too many are waiting; try again in a moment")
        if not await self._store.add_sandbox(sandbox, project.limits.sandboxes):
            raise LimitReached(
                f"cannot start another sandbox: the project's limit of {project.limits.sandboxes} sandboxes at once "
                "(sandboxes) is reached; kill one or raise the limit"
            )
        return sandbox

    def _planned(self, project: Project, request: StartRequest) -> Sandbox:
        template, now, runtime = request.template, self._clock.now(), self._runtime(request)
        if runtime not in self._engine.runtimes:
            known = ", ".join(self._engine.runtimes)
            raise BadRequest(f"cannot use runtime {runtime!r}; this server has: {known}")
        return Sandbox(
            id=self._ids.sandbox_id(),
            project_id=project.id,
            template_id=template.id,
            alias=template.names[0] if template.names else None,
            runtime=runtime,
            resources=sized(request, project),
            state=State.CREATING,
            desired=Desired.RUNNING,
            created_at=now,
            started_at=now,
            expires_at=now + timedelta(seconds=request.timeout_s),
            timeout_s=request.timeout_s,
            secured=request.secured,
            network=request.network,
            metadata=request.metadata,
            server_id=self._server_id,
        )

    def _runtime(self, request: StartRequest) -> str:
        return request.runtime or request.template.runtime or self._engine.runtimes[0]

    async def _measured(self, sandbox: Sandbox, request: StartRequest, since: float) -> Sandbox:
        with self._failure_counted(sandbox.runtime):
            running = await self._bring_up(sandbox, request)
        self._meters.creates.labels(running.runtime, "ok").inc()
        self._meters.create_seconds.labels(running.runtime).observe(time.perf_counter() - since)
        return running

    @contextmanager
    def _failure_counted(self, runtime: str) -> Generator[None]:
        try:
            yield
        except Exception as error:
            code = error.code if isinstance(error, WarrenError) else WarrenError.code
            # A runtime that we do not have is a word of the caller's: it must not become a label.
            known = runtime if runtime in self._engine.runtimes else "unknown"
            self._meters.creates.labels(known, code).inc()
            raise

    async def _bring_up(self, sandbox: Sandbox, request: StartRequest) -> Sandbox:
        try:
            async with asyncio.timeout(limits.CREATE_DEADLINE_S):
                placement = await self._place(sandbox, request)
                await self._guest.init(
                    placement.address, self._identity(sandbox, request, placement), limits.GUEST_BOOT_DEADLINE_S
                )
                now = self._clock.now()
                running = await self._store.mark_running(sandbox.id, now, now + timedelta(seconds=request.timeout_s))
        except (TimeoutError, Timeout) as error:
            await self._ending.discard(sandbox.id, EndReason.FAILED_TO_START)
            raise PlacementTimeout(f"cannot start sandbox {sandbox.id} in time: {error}") from error
        except BaseException:
            await asyncio.shield(self._ending.discard(sandbox.id, EndReason.FAILED_TO_START))
            raise
        if running is None:
            await self._ending.discard(sandbox.id, EndReason.KILLED)
            raise EngineFailed(f"cannot hand out sandbox {sandbox.id}: it was killed while it started")
        self._supervision.watch(running, placement.address)
        return running

    async def _place(self, sandbox: Sandbox, request: StartRequest) -> Placement:
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._engine.create(
                SandboxSpec(
                    id=sandbox.id,
                    runtime=sandbox.runtime,
                    image=self._images.image(request.template),
                    hostname=sandbox.id,
                    resources=sandbox.resources,
                    egress=sandbox.network.egress(),
                )
            )
        finally:
            self._places.release()

    def _identity(self, sandbox: Sandbox, request: StartRequest, placement: Placement) -> GuestIdentity:
        return GuestIdentity(
            sandbox_id=sandbox.id,
            template_id=sandbox.template_id,
            control_token=self._tokens.control(sandbox.id),
            access_token=self._tokens.access(sandbox.id) if sandbox.secured else None,
            hostname=sandbox.id,
            machine_id=self._tokens.machine_id(sandbox.id),
            default_user=request.template.default_user,
            default_workdir=request.template.default_workdir,
            envs=request.envs,
            dns_servers=placement.dns_servers,
        )


def sized(request: StartRequest, project: Project) -> Resources:
    """The sizes of a new sandbox. Raises BadRequest below the minima, ResourceTooLarge above the project's limits."""
    template = request.template.resources
    cpu = template.cpu_count if request.cpu_count is None else request.cpu_count
    memory = template.memory_mb if request.memory_mb is None else request.memory_mb
    disk = template.disk_mb if request.disk_mb is None else request.disk_mb
    quota = project.limits
    for name, value, low, high in (
        ("cpuCount", cpu, limits.MIN_CPU_COUNT, quota.cpu_count),
        ("memoryMB", memory, limits.MIN_MEMORY_MB, quota.memory_mb),
        ("diskMB", disk, limits.MIN_DISK_MB, quota.disk_mb),
    ):
        if value < low:
            raise BadRequest(f"cannot use {name} {value}: the least is {low}")
        if value > high:
            raise ResourceTooLarge(f"cannot use {name} {value}: the project's limit is {high}")
    return Resources(cpu_count=cpu, memory_mb=memory, disk_mb=disk, pids=template.pids)
