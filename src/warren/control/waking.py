"""Traffic wakes a paused sandbox, if its owner wished so (`contracts.routing.Sleepers`)."""

import asyncio
import contextlib

from warren.contracts.audit import Audit
from warren.contracts.routing import Route
from warren.contracts.store import Store
from warren.control.activity import Activity
from warren.control.live import LiveSandboxes
from warren.control.resuming import Resuming
from warren.model import limits
from warren.model.audit import Event, Kind, Outcome
from warren.model.errors import Forbidden, SandboxChanging, SandboxNotFound, SandboxPaused, WarrenError
from warren.model.pause import PauseKind
from warren.model.project import Project
from warren.model.sandbox import Sandbox


class Waking:
    def __init__(
        self,
        *,
        server_id: str,
        store: Store,
        live: LiveSandboxes,
        resuming: Resuming,
        activity: Activity,
        audit: Audit,
    ) -> None:
        self._server_id, self._store, self._live = server_id, store, live
        self._resuming, self._activity, self._audit = resuming, activity, audit

    async def asleep(self, sandbox_id: str) -> Route | None:
        sandbox = await self._sleeper(sandbox_id)
        return None if sandbox is None else self._live.route_of(sandbox, "")

    async def wake(self, sandbox_id: str) -> Route:
        try:
            with self._activity.using(sandbox_id):  # or it is put back to sleep before the request gets there
                async with asyncio.timeout(limits.WAKE_DEADLINE_S):
                    await self._resume(sandbox_id)
        except TimeoutError:
            raise SandboxChanging(f"cannot wake sandbox {sandbox_id} in time; try again in a moment") from None
        route = self._live.find(sandbox_id)
        if route is None:
            raise SandboxNotFound.of(sandbox_id)
        return route

    async def _resume(self, sandbox_id: str) -> None:
        for _ in range(limits.CHANGE_TRIES):
            sandbox = await self._sleeper(sandbox_id)
            if sandbox is None:
                return  # somebody was faster, or it is gone, or paused by its owner for good
            with contextlib.suppress(SandboxPaused):  # what idleness put to sleep was paused otherwise meanwhile
                await self._wake(sandbox)
                return
        raise SandboxChanging(f"cannot wake sandbox {sandbox_id}: it falls asleep time and again; try again later")

    async def _wake(self, sandbox: Sandbox) -> None:
        project = await self._store.project(sandbox.project_id)
        try:
            if project is None or not await self._store.keys(project.id):
                raise Forbidden("cannot wake the sandbox: no key of its project is in force any more")
            seconds = None if sandbox.is_idle else lifetime_s(sandbox, project)
            await self._resuming.resume(project, sandbox, seconds)
        except SandboxPaused:
            raise
        except WarrenError as error:
            self._note(sandbox, Outcome.REFUSED, error.code)
            raise
        self._note(sandbox, Outcome.ALLOWED, "auto_resume")

    def _note(self, sandbox: Sandbox, outcome: Outcome, rule: str) -> None:
        event = Event(
            Kind.SANDBOX_RESUME, outcome, rule, f"sandbox:{sandbox.id}", project=sandbox.project_id, via="gateway"
        )
        self._audit.sample(event)

    async def _sleeper(self, sandbox_id: str) -> Sandbox | None:
        if not self._live.is_asleep(sandbox_id):
            return None
        sandbox = await self._store.sleeper(sandbox_id)
        if sandbox is None or sandbox.server_id != self._server_id:
            return None
        if not (sandbox.lifecycle.auto_resume or sandbox.is_idle):
            return None
        # Booting is no answer to a request: what it would find is not what it was meant for (wire contract 6.1.7).
        files_alone = sandbox.pause is not None and sandbox.pause.kind is PauseKind.FILESYSTEM
        return None if files_alone else sandbox


def lifetime_s(sandbox: Sandbox, project: Project) -> int:
    """What the sandbox was created with, not less than the floor and not more than its project may."""
    return min(max(sandbox.timeout_s, limits.AUTO_RESUME_FLOOR_S), project.limits.lifetime_s)
