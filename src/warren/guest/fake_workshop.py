"""A guest's workshop in memory: commands are functions, a tree is what was done in it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from warren.contracts.guest import CopyOrder, Door, Exit, GuestCommand, OnLine, OnStart, nothing
from warren.model.errors import Timeout

Program = Callable[[GuestCommand, OnLine], Awaitable[Exit]]


async def silent(command: GuestCommand, on_line: OnLine) -> Exit:
    """A command that succeeds and says nothing."""
    del command, on_line
    return Exit(0)


@dataclass
class FakeWorkshop:
    """`done` is what happened, in order. `programs` stand for shell commands; all others are `silent`."""

    programs: dict[str, Program] = field(default_factory=dict[str, Program])
    users: set[str] = field(default_factory=lambda: {"root", "user"})
    done: list[str] = field(default_factory=list[str])
    commands: list[GuestCommand] = field(default_factory=list[GuestCommand])

    async def run(
        self, door: Door, command: GuestCommand, on_line: OnLine, deadline_s: float, on_start: OnStart = nothing
    ) -> Exit:
        del door
        self.commands.append(command)
        if command.user not in self.users:
            return Exit(1, f"unauthenticated: invalid username: '{command.user}'")
        self.done.append(f"run {command.words[-1]}")
        on_start()
        try:
            async with asyncio.timeout(deadline_s):
                return await self.programs.get(command.words[-1], silent)(command, on_line)
        except TimeoutError:
            raise Timeout(f"cannot wait longer than {deadline_s:g} s") from None

    async def make_folder(self, door: Door, path: str, user: str) -> Exit:
        del door
        self.done.append(f"folder {path} {user}")
        return Exit(0)

    async def copy_in(self, door: Door, order: CopyOrder) -> Exit:
        del door
        self.done.append(f"copy {order.source} {order.target} {order.owner} {order.mode}".rstrip())
        return Exit(0)

    async def settle(self, door: Door) -> None:
        del door
        self.done.append("settle")

    async def tree(self, door: Door, since_ns: int) -> AsyncIterator[bytes]:
        del door, since_ns
        for line in self.done:
            yield line.encode()
