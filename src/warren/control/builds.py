"""Builds of templates: registering one, starting it, waiting in line, its log, its end.

    request ──► waiting ──► start ──► building ──► ready | error

A build has one home, the server where it was requested: that one runs it, and has what it made. What starts it (the
recipe, with the password of a registry) is nowhere but in this process, so what is at work when a server dies has
failed, and whoever asked builds again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from warren.contracts.audit import Audit
from warren.contracts.building import Builder, BuildOrder
from warren.contracts.clock import Clock, Ids
from warren.contracts.store import Store
from warren.contracts.template_store import LineQuery
from warren.control.build_log import BuildLog
from warren.control.garbage import Garbage
from warren.control.leases import Leases
from warren.control.templates import Templates, is_namespace_of
from warren.control.uploads import Uploads
from warren.control.work import Work
from warren.model import limits
from warren.model.audit import Event, Kind, Outcome
from warren.model.build import Build, BuildLine, BuildStatus, Built, LogLevel, Recipe
from warren.model.errors import BadRequest, BuildFailed, BuildNotFound, Busy, Forbidden, NotSupported, WarrenError
from warren.model.project import Project
from warren.model.snapshot import DEFAULT_TAG
from warren.model.template import Reference, TemplateEntry, checked_tags
from warren.telemetry.meters import Meters

log = structlog.get_logger(__name__)

_SERVER_ENDED = BuildFailed("cannot finish the build: the server ended meanwhile; build again")


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """`name` may be `[namespace/]name[:tag]` or the id of a template that is to be built anew."""

    name: str
    tags: Sequence[str] = ()
    cpu_count: int | None = None
    memory_mb: int | None = None
    free_disk_mb: int | None = None


class Builds:
    """Every method raises TemplateNotFound, and Forbidden for a template that is not the project's own."""

    def __init__(
        self,
        *,
        server_id: str,
        builder: Builder | None,
        store: Store,
        clock: Clock,
        ids: Ids,
        templates: Templates,
        uploads: Uploads,
        leases: Leases,
        garbage: Garbage,
        work: Work,
        meters: Meters,
        audit: Audit,
    ) -> None:
        self._server_id, self._builder, self._store = server_id, builder, store
        self._clock, self._ids, self._templates, self._uploads = clock, ids, templates, uploads
        self._leases, self._garbage, self._work = leases, garbage, work
        self._meters, self._audit = meters, audit
        self._places = asyncio.Semaphore(limits.BUILDS_AT_ONCE)
        self._at_work: dict[str, asyncio.Task[None]] = {}

    async def request(self, project: Project, wanted: BuildRequest) -> tuple[TemplateEntry, Build]:
        """Register a build of a new template, or of one that is there. Raises BadRequest, Forbidden, LimitReached."""
        self._check_builder()
        name = Reference.parse(wanted.name)
        if not is_namespace_of(project, name.namespace):
            raise Forbidden(f"cannot build in the namespace {name.namespace!r}: this project's is {project.name!r}")
        tags = checked_tags([*([name.tag] if name.tag else []), *wanted.tags])
        now = self._clock.now()
        build = await self._store.request_build(
            project.id,
            name.name,
            Build(
                id=self._ids.uuid(),
                template_id=self._ids.template_id(),
                server_id=self._server_id,
                status=BuildStatus.WAITING,
                resources=project.limits.sized(
                    limits.DEFAULT_CPU_COUNT if wanted.cpu_count is None else wanted.cpu_count,
                    limits.DEFAULT_MEMORY_MB if wanted.memory_mb is None else wanted.memory_mb,
                    max(limits.DEFAULT_DISK_MB, wanted.free_disk_mb or 0),
                ),
                created_at=now,
                updated_at=now,
                tags=tags or (DEFAULT_TAG,),
            ),
        )
        log.info("build registered", template=build.template_id, build=build.id)
        return await self._templates.own(project, build.template_id), build

    async def start(self, project: Project, reference: str, build_id: str, recipe: Recipe) -> None:
        """Let a registered build begin as soon as there is a place.

        Raises BuildNotFound, BadRequest when it was started before, ServerAway, Busy.
        """
        builder = self._check_builder()
        build = await self._found(await self._templates.own(project, reference), build_id)
        await self._templates.refuse_elsewhere(build.server_id, f"build {build.id}")
        if recipe.from_template is not None:
            await self._templates.startable(project, recipe.from_template)
        if len(self._at_work) >= limits.BUILDS_AT_ONCE + limits.BUILDS_WAITING:
            raise Busy("cannot start another build: too many are waiting; try again later")
        claimed = await self._store.claim_build(build.template_id, build.id, self._clock.now())
        if claimed is None:
            raise BadRequest(f"cannot start build {build.id}: build is not in waiting state")
        order = BuildOrder(build.id, build.template_id, project, build.resources, recipe)
        task = self._work.spawn(self._run(builder, order, claimed), f"build {build.id}")
        self._at_work[build.id] = task
        task.add_done_callback(lambda _: self._at_work.pop(build.id, None))

    async def status(
        self, project: Project, reference: str, build_id: str, query: LineQuery
    ) -> tuple[Build, Sequence[BuildLine]]:
        """A build and some of its log. Raises BuildNotFound."""
        build = await self._found(await self._templates.visible(project, reference), build_id)
        return build, await self._store.build_lines(build.template_id, build.id, query)

    async def cancel(self, project: Project, reference: str, build_id: str) -> None:
        """End a build that waits or is at work, also one on another server. Raises BuildNotFound, BadRequest."""
        build = await self._found(await self._templates.own(project, reference), build_id)
        now = self._clock.now()
        if not await self._store.fail_build(build.template_id, build.id, "the build was cancelled", None, now):
            raise BadRequest(f"cannot cancel build {build.id}: it has ended")
        await self._end([build])

    async def delete_template(self, project: Project, reference: str) -> str:
        """Delete a template and end its builds; its id. Raises TemplateInUse."""
        entry = await self._templates.own(project, reference)
        unfinished = await self._store.unfinished_builds(self._server_id)
        await self._store.remove_template(entry.id)
        await self._end([build for build in unfinished if build.template_id == entry.id])
        await self._uploads.forget(entry.id)
        return entry.id

    async def recover(self) -> None:
        """Of what the server before this one left: what was at work has failed, what was half-taken goes."""
        await self._uploads.recover()
        for build in await self._store.unfinished_builds(self._server_id):
            if build.status is BuildStatus.BUILDING and build.id not in self._at_work:
                await self._fail(build, _SERVER_ENDED)

    async def run(self) -> None:
        """Forget what nobody comes back for, now and then, until cancelled."""
        while True:
            await self._clock.sleep_until(self._clock.now() + timedelta(seconds=limits.BUILD_SWEEP_S))
            try:
                await self.expire()
                await self._uploads.sweep()
                await self._garbage.tidy()
            except Exception:
                log.exception("sweep of builds failed; it runs again")

    async def expire(self) -> None:
        """Give up on builds that were registered and never started."""
        before = self._clock.now() - timedelta(seconds=limits.BUILD_START_S)
        for build in await self._store.unfinished_builds(self._server_id):
            if build.status is BuildStatus.WAITING and build.created_at < before:
                await self._fail(build, BuildFailed("cannot build: the build was never started"))

    async def _run(self, builder: Builder, order: BuildOrder, build: Build) -> None:
        try:
            await self._carried_out(builder, order, build)
        finally:
            self._leases.release(build.id)

    async def _carried_out(self, builder: Builder, order: BuildOrder, build: Build) -> None:
        lines = BuildLog(store=self._store, clock=self._clock, build=build)
        writing = self._work.spawn(self._write_log(lines, build), f"log of build {build.id}")
        try:
            outcome = await self._outcome(builder, order, lines)
        except asyncio.CancelledError:
            await asyncio.shield(self._fail(build, _SERVER_ENDED))
            raise
        finally:
            writing.cancel()
        await lines.write()  # all of it is there before the status says that no more will come
        if isinstance(outcome, Built):
            await self._finish(build, outcome)
        else:
            await self._fail(build, outcome)

    async def _outcome(self, builder: Builder, order: BuildOrder, lines: BuildLog) -> Built | WarrenError:
        try:
            if self._places.locked():
                lines.say(LogLevel.INFO, "Waiting for a place: other builds are at work")
            async with self._places, asyncio.timeout(limits.BUILD_DEADLINE_S):
                return await builder.build(order, lines.say)
        except TimeoutError:
            error: WarrenError = BuildFailed(f"cannot build for longer than {limits.BUILD_DEADLINE_S:.0f} s")
        except WarrenError as failure:
            error = failure
        except Exception:
            log.exception("build broke down", build=order.id)
            error = BuildFailed("cannot complete the build: an internal error, logged by the server")
        lines.say(LogLevel.ERROR, error.message, _step(error))
        return error

    async def _write_log(self, lines: BuildLog, build: Build) -> None:
        await lines.run()
        if (task := self._at_work.get(build.id)) is not None:
            task.cancel()  # it was ended by another server, or its template deleted

    async def _finish(self, build: Build, built: Built) -> None:
        try:
            if not await self._store.finish_build(build.template_id, build.id, built, self._clock.now()):
                return
        except WarrenError as error:  # too many tags, or no database
            await self._fail(build, error)
            return
        self._note(build, "ready")

    async def _fail(self, build: Build, error: WarrenError) -> None:
        now = self._clock.now()
        if await self._store.fail_build(build.template_id, build.id, error.message, _step(error), now):
            self._note(build, error.code)

    def _note(self, build: Build, rule: str) -> None:
        log.info("build ended", template=build.template_id, build=build.id, outcome=rule)
        self._meters.builds.labels("ready" if rule == "ready" else "error").inc()
        subject, details = f"template:{build.template_id}", {"build": build.id}
        self._audit.note(Event(Kind.TEMPLATE_BUILT, Outcome.OBSERVED, rule, subject, details=details))

    async def _end(self, builds: Sequence[Build]) -> None:
        """Cancel what is at work here, and wait until its sandbox is gone."""
        tasks = [self._at_work[build.id] for build in builds if build.id in self._at_work]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _found(self, entry: TemplateEntry, build_id: str) -> Build:
        found = await self._store.build(entry.id, build_id)
        if found is None:
            raise BuildNotFound(f"cannot find build {build_id!r} of template '{entry.id}'")
        return found

    def _check_builder(self) -> Builder:
        if self._builder is None:
            raise NotSupported("cannot build templates: this server has no builder")
        return self._builder


def _step(error: WarrenError) -> str | None:
    return error.step if isinstance(error, BuildFailed) else None
