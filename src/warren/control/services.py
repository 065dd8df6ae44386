"""The start command of a template, and when it counts as ready."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from warren.contracts.guest import Door, GuestCommand, OnLine, Workshop
from warren.model import limits
from warren.model.build import Built
from warren.model.errors import BuildFailed, Timeout

SHELL = "/bin/bash"


class Services:
    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    @asynccontextmanager
    async def started(self, door: Door, of: Built, on_line: OnLine) -> AsyncGenerator[None]:
        """In the block the services are up; the start command goes on when it is left.

        Raises BuildFailed, in a group, when the start command ends with an error or the ready command never succeeds.
        """
        async with asyncio.TaskGroup() as group:
            start = group.create_task(self._start(door, of, on_line))
            await self._ready(door, of)
            yield
            start.cancel()

    async def _start(self, door: Door, of: Built, on_line: OnLine) -> None:
        """A start command may end, as one that leaves a daemon does; an error is the template's."""
        if of.start_command is None:
            return
        code = await self._run(door, of, of.start_command, on_line, outlives=True)
        if code != 0:
            raise BuildFailed(f"failed to run start command '{of.start_command}': exit status {code}")

    async def _ready(self, door: Door, of: Built) -> None:
        if of.ready_command is None:
            await asyncio.sleep(limits.BUILD_START_WAIT_S)
            return
        try:
            async with asyncio.timeout(limits.BUILD_READY_DEADLINE_S):
                while await self._run(door, of, of.ready_command, _ignore, outlives=False) != 0:  # noqa: ASYNC110 - no event says so
                    await asyncio.sleep(limits.BUILD_READY_PAUSE_S)
        except (TimeoutError, Timeout):
            raise BuildFailed(
                f"failed to run ready command '{of.ready_command}': it did not succeed within "
                f"{limits.BUILD_READY_DEADLINE_S:g} s"
            ) from None

    async def _run(self, door: Door, of: Built, command: str, on_line: OnLine, *, outlives: bool) -> int:
        words = (SHELL, "-l", "-c", command)
        order = GuestCommand(words, of.default_user, of.default_workdir, of.envs, outlives=outlives)
        ended = await self._workshop.run(door, order, on_line, limits.BUILD_READY_DEADLINE_S + limits.KILL_DEADLINE_S)
        if ended.refusal:
            raise BuildFailed(f"failed to run command '{command}': command failed: {ended.refusal}")
        return ended.code


def _ignore(line: str) -> None:
    del line
