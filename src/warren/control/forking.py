"""Fork: one checkpoint of a running sandbox, several copies that go on from it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from warren.contracts.engine import Engine, Restore
from warren.contracts.store import Store
from warren.control.checkpoints import Checkpoints
from warren.control.copying import Copying, check_runs
from warren.control.guest_envs import GuestEnvs
from warren.control.sandbox_start import Origin, Starting, StartRequest
from warren.control.snapshots import snapshot_kind
from warren.control.templates import with_services
from warren.control.work import Work
from warren.model import limits
from warren.model.errors import BadRequest, GuestSilent, WarrenError
from warren.model.project import Project
from warren.model.sandbox import Sandbox
from warren.model.snapshot import SnapshotKind
from warren.model.template import Template, template_of
from warren.telemetry.meters import Meters

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """`envs` are the copies' environment; None lets them keep their source's, which has to be asked for."""

    count: int = 1
    timeout_s: int = limits.FORK_DEFAULT_TIMEOUT_S
    envs: Mapping[str, str] | None = None


class Forking:
    def __init__(
        self,
        *,
        engine: Engine,
        store: Store,
        checkpoints: Checkpoints,
        copying: Copying,
        envs: GuestEnvs,
        starting: Starting,
        work: Work,
        meters: Meters,
    ) -> None:
        self._engine, self._store, self._checkpoints, self._starting = engine, store, checkpoints, starting
        self._envs = envs
        self._copying, self._work, self._meters = copying, work, meters

    async def fork(self, project: Project, sandbox: Sandbox, request: ForkRequest) -> Sequence[Sandbox | WarrenError]:
        """Copies of a running sandbox, each a sandbox of its own or the reason why it is none; the source goes on.

        Raises BadRequest, SandboxPaused, SandboxChanging, GuestSilent, NoSpace, Busy and EngineFailed when no copy
        can be made. Goes on to its end when the caller goes away.
        """
        if not 1 <= request.count <= limits.FORK_MAX:
            raise BadRequest(f"cannot make {request.count} copies: give a count of 1 to {limits.FORK_MAX}")
        check_runs(sandbox)
        return await self._work.finish(self._fork(project, sandbox, request), f"fork {sandbox.id}")

    async def _fork(self, project: Project, sandbox: Sandbox, request: ForkRequest) -> Sequence[Sandbox | WarrenError]:
        kind = snapshot_kind(sandbox, memory=None, keeps_memory=self._engine.keeps_memory(sandbox.runtime))
        with self._meters.sleeping("fork", sandbox.runtime), self._checkpoints.new() as checkpoint_id:
            if request.envs is None and kind is SnapshotKind.FILESYSTEM:
                await self._keep_envs(sandbox)
            await self._copying.copy(sandbox, checkpoint_id, kind, durable=False)
            template = await with_services(self._store, template_of(sandbox))
            wanted = copy_request(sandbox, template, request, Origin(Restore(checkpoint_id, kind), sandbox.id))
            try:
                return await asyncio.gather(*(self._copy(project, wanted) for _ in range(request.count)))
            finally:
                await self._checkpoints.forget(checkpoint_id)

    async def _keep_envs(self, sandbox: Sandbox) -> None:
        """A copy that boots has its source's environment from its files."""
        if not await self._envs.retain(sandbox.id):
            raise GuestSilent("cannot let copies have the environment of their source: its guest does not answer")

    async def _copy(self, project: Project, wanted: StartRequest) -> Sandbox | WarrenError:
        try:
            return await self._starting.start(project, wanted)
        except WarrenError as error:
            return error


def copy_request(sandbox: Sandbox, template: Template, request: ForkRequest, origin: Origin) -> StartRequest:
    """A copy is like its source in all but identity, time and environment."""
    return StartRequest(
        template=template,
        timeout_s=request.timeout_s,
        secured=sandbox.secured,
        network=sandbox.network,
        metadata=sandbox.metadata,
        lifecycle=sandbox.lifecycle,
        envs=request.envs,
        origin=origin,
        volumes=sandbox.volumes,
    )
