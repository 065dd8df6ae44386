"""Template builds (`warren.contracts.building.Builder`): what runs which steps, what comes from the cache.

    base ──► steps that no layer covers ──► image ──► services ──► Built
             in a sandbox, a layer after each          memory taken when they are ready

Layers are shared between the templates of one project, never across: a RUN may leave that project's secrets in them.
"""

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from warren.contracts.building import BuildOrder, ImageSource, Say
from warren.contracts.clock import Clock
from warren.contracts.engine import Engine, Restore
from warren.contracts.guest import Door, Workshop
from warren.control.build_bench import Bench, Setting
from warren.control.build_layers import Layers, Leaving
from warren.control.build_steps import Planned, Stage, chain, plan
from warren.control.build_work import Worker
from warren.control.checkpoints import Checkpoints
from warren.control.garbage import Garbage
from warren.control.leases import Leases
from warren.control.memory_key import memory_key
from warren.control.services import Services
from warren.control.templates import TemplateFiles, Templates
from warren.model import limits
from warren.model.build import BASE_STEP, FINALIZE_STEP, Built, LogLevel
from warren.model.errors import BuildFailed, CheckpointNotFound, CheckpointUnusable, Timeout, Unavailable, WarrenError
from warren.model.sandbox import Resources
from warren.model.snapshot import SnapshotKind
from warren.model.template import TemplateImage

DEFAULT_USER, DEFAULT_WORKDIR = "user", "/home/user"
"""Of what is built from an image, whatever that says: as the reference does (wire contract 2.3)."""

log = structlog.get_logger(__name__)

Archives = Callable[[str, str], Path]
"""Where the archive of a COPY lies: template's id, files hash."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """`image` is what the build starts from, `epoch` the time that its new files get."""

    order: BuildOrder
    runtime: str
    image: TemplateImage
    epoch: int
    stage: Stage
    key: str
    steps: Sequence[Planned]

    @property
    def end(self) -> Stage:
        return self.steps[-1].after if self.steps else self.stage

    @property
    def last_key(self) -> str:
        return self.steps[-1].key if self.steps else self.key

    @property
    def is_forced(self) -> bool:
        return any(step.forced for step in self.steps)

    @property
    def bench_resources(self) -> Resources:
        """Room for what steps write; the template's own disk comes on top of its image."""
        resources = self.order.resources
        return replace(resources, disk_mb=max(resources.disk_mb, limits.BUILD_DISK_MB))


class TemplateBuilder:
    def __init__(
        self,
        *,
        engine: Engine,
        workshop: Workshop,
        bench: Bench,
        services: Services,
        clock: Clock,
        templates: Templates,
        images: TemplateFiles,
        source: ImageSource | None,
        archives: Archives,
        layers: Layers,
        checkpoints: Checkpoints,
        leases: Leases,
        garbage: Garbage,
    ) -> None:
        self._engine, self._workshop, self._bench, self._clock = engine, workshop, bench, clock
        self._services = services
        self._templates, self._images, self._source = templates, images, source
        self._layers, self._checkpoints, self._leases, self._garbage = layers, checkpoints, leases, garbage
        self._worker = Worker(workshop, archives)

    async def build(self, order: BuildOrder, say: Say) -> Built:
        """See `Builder.build`."""
        planned = await self._planned(order, say)
        recipe, end = order.recipe, planned.end
        image = await self._image(planned, say)
        built = Built(
            digest=image.digest,
            default_user=end.user,
            default_workdir=end.workdir,
            envs=end.envs,
            start_command=recipe.start_command,
            ready_command=recipe.ready_command,
        )
        with _naming(FINALIZE_STEP):
            built = replace(built, checkpoint_id=await self._memory(planned, built, image, say))
        await self._garbage.tidy()
        return built

    async def _planned(self, order: BuildOrder, say: Say) -> _Plan:
        recipe = order.recipe
        digest, stage = await self._base(order, say)
        self._images.use(digest)
        image = self._held(order, digest)
        runtime = self._engine.runtimes[0]
        disk_mb = max(order.resources.disk_mb, limits.BUILD_DISK_MB)
        key = chain(order.project.id, runtime, disk_mb, digest)
        steps = plan(recipe.steps, stage, key, forced=recipe.force)
        return _Plan(order, runtime, image, self._images.made_at(digest), stage, key, steps)

    async def _base(self, order: BuildOrder, say: Say) -> tuple[str, Stage]:
        recipe = order.recipe
        if recipe.from_template is not None:
            found = await self._templates.startable(order.project, recipe.from_template)
            say(LogLevel.INFO, f"FROM template {recipe.from_template}", BASE_STEP)
            return found.digest, Stage(found.default_user, found.default_workdir, found.envs)
        if recipe.from_image is None or self._source is None:
            raise BuildFailed("cannot build from nothing: name an image or a template", BASE_STEP)
        say(LogLevel.INFO, f"FROM {recipe.from_image}", BASE_STEP)
        fetched = await self._source.fetch(recipe.from_image, recipe.login, say)
        return fetched.digest, Stage(DEFAULT_USER, DEFAULT_WORKDIR, fetched.envs)

    async def _image(self, planned: _Plan, say: Say) -> TemplateImage:
        """The image after all steps: the base itself, one from the cache, or one that is made now."""
        if planned.last_key == planned.key:
            for step in planned.steps:
                say(LogLevel.INFO, _titled(planned, step), step.number)
            return planned.image
        if not planned.is_forced and (digest := self._layers.find(planned.last_key, Leaving.IMAGE)) is not None:
            if self._images.use(digest):
                for step in planned.steps:
                    say(LogLevel.INFO, _titled(planned, step, cached=True), step.number)
                return self._held(planned.order, digest)
            self._layers.drop(planned.last_key, Leaving.IMAGE)
        while True:
            done, restore = self._begin(planned)
            try:
                return await self._carried_out(planned, done, restore, say)
            except (CheckpointNotFound, CheckpointUnusable) as error:
                if restore is None:
                    raise
                log.warning("layer not usable; the step runs again", layer=restore.checkpoint_id, error=error.message)
                self._layers.drop(planned.steps[done - 1].key, Leaving.FILES)

    def _held(self, order: BuildOrder, digest: str) -> TemplateImage:
        """An image that nobody deletes as long as this build is not over."""
        self._leases.hold(order.id, digest)
        return self._images.at(digest)

    def _begin(self, planned: _Plan) -> tuple[int, Restore | None]:
        """How many steps the longest cached row of them covers, and what to start from then."""
        for done in range(len(planned.steps), 0, -1):
            step = planned.steps[done - 1]
            if step.forced or not step.leaves_layer:
                continue
            checkpoint_id = self._layers.find(step.key, Leaving.FILES)
            if checkpoint_id is not None:
                return done, Restore(checkpoint_id, SnapshotKind.FILESYSTEM)
        return 0, None

    async def _carried_out(self, planned: _Plan, done: int, restore: Restore | None, say: Say) -> TemplateImage:
        for step in planned.steps[:done]:
            say(LogLevel.INFO, _titled(planned, step, cached=True), step.number)

        async def work(sandbox_id: str, door: Door) -> TemplateImage:
            for step in planned.steps[done:]:
                say(LogLevel.INFO, _titled(planned, step), step.number)
                with _naming(step.number):
                    await self._worker.do(planned.order.template_id, step, door, planned.epoch, say)
                    if step.leaves_layer:
                        await self._keep(sandbox_id, step.key)
            with _naming(FINALIZE_STEP):
                say(LogLevel.INFO, "Packing the image", FINALIZE_STEP)
                return await self._baked(planned, door)

        stage = planned.steps[done - 1].after if done else planned.stage
        setting = Setting(planned.image, planned.runtime, planned.bench_resources, stage, restore)
        return await self._bench.use(setting, work)

    async def _keep(self, sandbox_id: str, key: str) -> None:
        """The files after a step, for the next build that comes by here. What is not kept only costs time."""
        with self._checkpoints.new() as checkpoint_id:
            try:
                async with self._checkpoints.turn(sandbox_id):
                    made = await self._engine.checkpoint(sandbox_id, checkpoint_id, SnapshotKind.FILESYSTEM, hold=False)
            except WarrenError as error:
                log.warning("layer not kept", error=error.message)
                return
            replaced = self._layers.put(key, Leaving.FILES, checkpoint_id, made.bytes)
        if replaced is not None:
            await self._checkpoints.forget(replaced)

    async def _baked(self, planned: _Plan, door: Door) -> TemplateImage:
        since = self._clock.now().timestamp() > planned.epoch  # else the clock is wrong, and says nothing of files
        tree = self._workshop.tree(door, (planned.epoch + 1) * 10**9 - 1 if since else -1)
        target = self._images.partial()
        try:
            digest = await self._engine.bake(
                planned.image, tree, target, epoch=planned.epoch, disk_mb=planned.bench_resources.disk_mb
            )
            self._images.adopt(target, digest)
        finally:
            target.unlink(missing_ok=True)
        self._layers.put(planned.last_key, Leaving.IMAGE, digest)
        return self._held(planned.order, digest)

    async def _memory(self, planned: _Plan, built: Built, image: TemplateImage, say: Say) -> str | None:
        """A checkpoint of a sandbox from the finished image with its services up; None where none is needed or kept."""
        if built.start_command is None and built.ready_command is None:
            return None
        if not self._engine.keeps_memory(planned.runtime):
            say(LogLevel.INFO, "The start command will run when a sandbox is created", FINALIZE_STEP)
        key = memory_key(planned.order.project.id, planned.runtime, built, planned.order.resources)
        checkpoint_id = self._layers.find(key, Leaving.MEMORY)
        if checkpoint_id is not None and not planned.is_forced:
            self._leases.hold(planned.order.id, checkpoint_id)
            if await self._checkpoints.holds_memory(checkpoint_id):
                say(LogLevel.INFO, "CACHED start command", FINALIZE_STEP)
                return checkpoint_id

        async def work(sandbox_id: str, door: Door) -> bool:
            async with self._services.started(door, built, lambda line: say(LogLevel.INFO, line, FINALIZE_STEP)):
                if not self._engine.keeps_memory(planned.runtime):
                    return False
                async with self._checkpoints.turn(sandbox_id, limits.CHECKPOINT_DEADLINE_S):
                    made = await self._engine.checkpoint(sandbox_id, fresh, SnapshotKind.MEMORY, hold=True)
                self._layers.put(key, Leaving.MEMORY, fresh, made.bytes)
                self._leases.hold(planned.order.id, fresh)
                return True

        with self._checkpoints.new() as fresh:
            # Whoever restores it later knows the checkpoint's id, and so the token that the guest in it believes.
            setting = Setting(image, planned.runtime, planned.order.resources, planned.end, known_as=fresh)
            return fresh if await self._bench.use(setting, work) else None


def _titled(planned: _Plan, step: Planned, *, cached: bool = False) -> str:
    return f"{'CACHED ' if cached else ''}[{step.number}/{len(planned.steps)}] {step.title}"


@contextlib.contextmanager
def _naming(step: str) -> Generator[None]:
    """What fails here fails the build at this step."""
    try:
        yield
    except BuildFailed as error:
        raise BuildFailed(error.message, error.step or step) from error
    except (Timeout, Unavailable) as error:
        raise BuildFailed(error.message, step) from error
