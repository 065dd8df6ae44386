"""The sandbox that a build's steps run in: one of its own, with no row and no route, gone at the end.

Like a spare of the pool it is known to nobody; a server that starts destroys those of the one before it. It is told
the same of itself in every build, so that what the guest writes of it is the same in every image.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

import structlog

from warren.contracts.clock import Ids
from warren.contracts.engine import Engine, Restore, SandboxSpec, Shortage
from warren.contracts.guest import Door, Guest, GuestIdentity
from warren.control.build_steps import Stage
from warren.control.memory import MemoryRelief
from warren.control.spares import Spares
from warren.control.tokens import Tokens
from warren.model import limits
from warren.model.errors import BuildFailed, WarrenError
from warren.model.sandbox import Resources
from warren.model.template import TemplateImage

HOSTNAME = "sandbox"
MACHINE_ID = "0" * 32

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a sandbox of a build starts from. `known_as`: what its tokens are made of, if not of its id."""

    image: TemplateImage
    runtime: str
    resources: Resources
    stage: Stage
    restore: Restore | None = None
    known_as: str | None = None


log = structlog.get_logger(__name__)


class Bench:
    def __init__(
        self, *, engine: Engine, guest: Guest, relief: MemoryRelief, spares: Spares, tokens: Tokens, ids: Ids
    ) -> None:
        self._engine, self._guest, self._relief, self._spares = engine, guest, relief, spares
        self._tokens, self._ids = tokens, ids

    async def use(self, setting: Setting, work: Callable[[str, Door], Awaitable[T]]) -> T:
        """The outcome of `work(sandbox id, door)`. Raises what it raises, and what `Engine.create` does.

        Raises BuildFailed when the sandbox ends before the work. However this ends, nothing of the sandbox is left.
        """
        sandbox_id = self._ids.sandbox_id()
        try:
            door = await self._started(sandbox_id, setting)
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch(sandbox_id, door))
                try:
                    return await work(sandbox_id, door)
                finally:
                    watch.cancel()
        except BaseExceptionGroup as errors:
            raise _root(errors) from None
        finally:
            await asyncio.shield(self._destroy(sandbox_id))

    async def _started(self, sandbox_id: str, setting: Setting) -> Door:
        stage = setting.stage
        spec = SandboxSpec(
            id=sandbox_id,
            runtime=setting.runtime,
            image=setting.image,
            hostname=HOSTNAME,
            resources=setting.resources,
            restore=setting.restore,
        )
        placement = await self._spares.placed(partial(self._engine.create, spec))
        name = setting.known_as or sandbox_id
        door = Door(placement.address, self._tokens.control(name), self._tokens.access(name))
        identity = GuestIdentity(
            sandbox_id=HOSTNAME,
            template_id=HOSTNAME,
            control_token=door.control_token,
            access_token=door.access_token,
            hostname=HOSTNAME,
            machine_id=MACHINE_ID,
            default_user=stage.user,
            default_workdir=stage.workdir,
            envs=stage.envs,
            dns_servers=placement.dns_servers,
        )
        await self._guest.init(placement.address, identity, limits.GUEST_BOOT_DEADLINE_S)
        return door

    async def _watch(self, sandbox_id: str, door: Door) -> None:
        """Stand by while it lives: connections to one that is gone say nothing."""
        while (kind := await self._engine.shortage(sandbox_id)) is not Shortage.GONE:
            if kind is Shortage.GUEST:
                await self._relieve(sandbox_id, door)
        raise BuildFailed("cannot go on: the sandbox of the build has ended; did it run out of memory?")

    async def _relieve(self, sandbox_id: str, door: Door) -> None:
        try:
            await self._relief.relieve(sandbox_id, door.address, door.control_token)
        except TimeoutError:
            raise BuildFailed("cannot go on: the sandbox of the build is out of memory (memoryMB)") from None
        except WarrenError as error:
            log.warning("memory of a build not looked after", sandbox=sandbox_id, error=error.message)

    async def _destroy(self, sandbox_id: str) -> None:
        try:
            await self._engine.destroy(sandbox_id)
        except WarrenError as error:  # the next server destroys it
            log.error("sandbox of a build not removed", sandbox=sandbox_id, error=error.message)


def _root(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one that says most: of a sandbox that has ended, that it has, not that its guest is silent."""
    first = errors.exceptions[-1]
    return _root(cast("BaseExceptionGroup[BaseException]", first)) if isinstance(first, BaseExceptionGroup) else first
