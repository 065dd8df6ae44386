"""Memory of built-in templates with their services up, taken once on this machine.

A template that is built here has its memory taken by its build. Built-in ones come finished, on every machine the same.
"""

from collections.abc import Sequence

import structlog

from warren.contracts.engine import Engine
from warren.contracts.guest import Door
from warren.control.build_bench import Bench, Setting
from warren.control.build_layers import Layers, Leaving
from warren.control.build_steps import Stage
from warren.control.checkpoints import Checkpoints
from warren.control.memory_key import OWNER, memory_key
from warren.control.services import Services
from warren.control.templates import TemplateFiles
from warren.model import limits
from warren.model.errors import WarrenError
from warren.model.snapshot import SnapshotKind
from warren.model.template import Template

log = structlog.get_logger(__name__)


class TemplateMemory:
    def __init__(
        self,
        *,
        engine: Engine,
        bench: Bench,
        services: Services,
        images: TemplateFiles,
        layers: Layers,
        checkpoints: Checkpoints,
        taken: dict[str, str],
    ) -> None:
        """`taken`: checkpoints by `memory_key`. Not in the database, which servers share."""
        self._engine, self._bench, self._services = engine, bench, services
        self._images, self._layers, self._checkpoints = images, layers, checkpoints
        self.taken = taken

    async def take(self, templates: Sequence[Template]) -> None:
        """Have memory of each template that has services: what an earlier server took, or taken now.

        Never raises WarrenError: without it, sandboxes boot.
        """
        if not self._engine.keeps_memory(self._engine.runtimes[0]):
            return
        for template in templates:
            if template.start_command is None:
                continue
            try:
                self.taken[self._key(template)] = await self._found(template) or await self._taken(template)
                log.info("sandboxes of this template start from memory", template=template.names[0])
            except WarrenError as error:
                log.warning("memory of a template not taken", template=template.names[0], error=error.message)

    async def _found(self, template: Template) -> str | None:
        checkpoint_id = self._layers.find(self._key(template), Leaving.MEMORY)
        if checkpoint_id is None or not await self._checkpoints.holds_memory(checkpoint_id):
            return None
        return checkpoint_id

    async def _taken(self, template: Template) -> str:
        async def work(sandbox_id: str, door: Door) -> None:
            await self._services.start(door, template, limits.BUILD_READY_DEADLINE_S)
            async with self._checkpoints.turn(sandbox_id, limits.CHECKPOINT_DEADLINE_S):
                made = await self._engine.checkpoint(sandbox_id, fresh, SnapshotKind.MEMORY, hold=True)
            self._layers.put(self._key(template), Leaving.MEMORY, fresh, made.bytes)

        stage = Stage(template.default_user, template.default_workdir, template.envs)
        with self._checkpoints.new() as fresh:
            image, runtime = self._images.image(template), self._engine.runtimes[0]
            # Whoever restores it later knows the checkpoint's id, and so the token that the guest in it believes.
            await self._bench.use(Setting(image, runtime, template.resources, stage, known_as=fresh), work)
            return fresh

    def _key(self, template: Template) -> str:
        return memory_key(OWNER, self._engine.runtimes[0], template, template.resources)
