"""The start command of a template, and when it counts as ready."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from warren.contracts.guest import Door, Exit, Fate, GuestCommand, OnLine, Workshop
from warren.model import limits
from warren.model.build import Built
from warren.model.errors import BuildFailed, EngineFailed, ServicesNotReady, Timeout, Unavailable, WarrenError
from warren.model.template import Template

SHELL = "/bin/bash"
PATIENCE_S = limits.BUILD_READY_DEADLINE_S + limits.KILL_DEADLINE_S
"""For one command; what waits for several has a deadline of its own."""


class Services:
    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    @asynccontextmanager
    async def started(
        self, door: Door, of: Built | Template, on_line: OnLine, pause_s: float = limits.BUILD_READY_PAUSE_S
    ) -> AsyncGenerator[None]:
        """In the block the services are up; the start command goes on when it is left.

        Raises BuildFailed, in a group, when the start command ends with an error or the ready command never succeeds.
        """
        begun = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            start = group.create_task(self._start(door, of, on_line, begun))
            await begun.wait()
            await self._ready(door, of, pause_s)
            yield
            start.cancel()

    async def start(self, door: Door, template: Template, deadline_s: float) -> None:
        """Bring the services of a sandbox up that has just booted, and leave them running.

        A start command alone is not waited for. Raises EngineFailed when one fails, ServicesNotReady when they are not
        up in time or the guest does not answer.
        """
        try:
            async with asyncio.timeout(deadline_s):
                if template.ready_command is None:
                    await self._begin(door, template)
                    return
                async with self.started(door, template, _ignore, limits.SERVICES_READY_PAUSE_S):
                    pass
        except TimeoutError:
            command = template.ready_command or template.start_command
            raise ServicesNotReady(
                f"cannot start the template's services: '{command}' did not succeed within {deadline_s:g} s; try again "
                "when the machine is less busy, or have the template start faster"
            ) from None
        except (WarrenError, BaseExceptionGroup) as error:
            why = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
            kind = ServicesNotReady if isinstance(why, Timeout | Unavailable) else EngineFailed
            raise kind(f"cannot start the template's services: {why}") from error

    async def _begin(self, door: Door, template: Template) -> None:
        if template.start_command is not None:
            order = _order(template, template.start_command, Fate.LEFT)
            _checked(await self._workshop.run(door, order, _ignore, PATIENCE_S), template.start_command)

    async def _start(self, door: Door, of: Built | Template, on_line: OnLine, begun: asyncio.Event) -> None:
        """A start command may end, as one that leaves a daemon does; an error is the template's."""
        if of.start_command is None:
            begun.set()
            return
        ended = await self._workshop.run(
            door, _order(of, of.start_command, Fate.OUTLIVES), on_line, PATIENCE_S, begun.set
        )
        if (code := _checked(ended, of.start_command)) != 0:
            raise BuildFailed(f"failed to run start command '{of.start_command}': exit status {code}")

    async def _ready(self, door: Door, of: Built | Template, pause_s: float) -> None:
        if of.ready_command is None:
            await asyncio.sleep(limits.BUILD_START_WAIT_S)
            return
        try:
            async with asyncio.timeout(limits.BUILD_READY_DEADLINE_S):
                while await self._try(door, of, of.ready_command) != 0:  # noqa: ASYNC110 - no event says so
                    await asyncio.sleep(pause_s)
        except (TimeoutError, Timeout):
            raise BuildFailed(
                f"failed to run ready command '{of.ready_command}': it did not succeed within "
                f"{limits.BUILD_READY_DEADLINE_S:g} s"
            ) from None

    async def _try(self, door: Door, of: Built | Template, command: str) -> int:
        return _checked(await self._workshop.run(door, _order(of, command, Fate.KILLED), _ignore, PATIENCE_S), command)


def _order(of: Built | Template, command: str, fate: Fate) -> GuestCommand:
    return GuestCommand((SHELL, "-l", "-c", command), of.default_user, of.default_workdir, of.envs, fate)


def _checked(ended: Exit, command: str) -> int:
    if ended.refusal:
        raise BuildFailed(f"failed to run command '{command}': command failed: {ended.refusal}")
    return ended.code


def _ignore(line: str) -> None:
    del line
