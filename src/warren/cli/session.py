"""A command in a sandbox as if it ran here: `exec` passes streams, `shell` a whole terminal; both the exit code."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from warren.cli import local_terminal
from warren.cli.local_terminal import STDERR, STDIN, STDOUT
from warren.cli.process_stream import Process
from warren.guest.process_event import SIGNALLED, Ended, Output
from warren.model.errors import Unavailable

GRACE_S = 3.0
"""Seconds from the first Ctrl-C (SIGTERM inside) to SIGKILL."""
KEEP_ALIVE_EVERY_S = 30.0
KEEP_ALIVE_FOR_S = 90
"""Seconds that a sandbox with an open shell lives on at least; three times the above, so that one call may be lost."""

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run_streams(process: Process, pass_stdin: bool) -> int:
    """Until the command ends. Ctrl-C ends it: gently, then by force."""
    with _caught(*_ENDING_SIGNALS) as caught:
        interruption = _Interruption(process, caught)
        helpers: list[Coroutine[Any, Any, None]] = [interruption.watch()]
        if pass_stdin:
            helpers.append(_pump_stdin(process))
        code = await _beside(helpers, _copy_output(process))
    return code if interruption.number is None else SIGNALLED + interruption.number


async def run_terminal(process: Process, keep_alive: Callable[[], object]) -> int:
    """Until the shell ends. Every key goes inside, Ctrl-C too; SIGTERM and SIGHUP end it from outside."""
    with _caught(signal.SIGTERM, signal.SIGHUP) as caught, _caught(signal.SIGWINCH) as resized:
        interruption = _Interruption(process, caught)
        with local_terminal.raw(STDIN):
            helpers = [interruption.watch(), _pump_keys(process), _follow_size(process, resized), _stay(keep_alive)]
            code = await _beside(helpers, _copy_output(process))
    return code if interruption.number is None else SIGNALLED + interruption.number


async def _beside(helpers: Sequence[Coroutine[Any, Any, None]], main: Coroutine[Any, Any, int]) -> int:
    """The helpers live as long as the main work and no longer."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(helper) for helper in helpers]
        try:
            return await main
        finally:
            for task in tasks:
                task.cancel()


async def _copy_output(process: Process) -> int:
    try:
        async for event in process.events:
            if isinstance(event, Output):
                await local_terminal.write(STDERR if event.is_error else STDOUT, event.data)
            elif isinstance(event, Ended):
                return event.exit_code
    except BrokenPipeError:  # nobody reads any more, as with `| head`
        await process.signal("SIGKILL")
        return SIGNALLED + signal.SIGPIPE
    raise Unavailable("cannot go on: the sandbox sent no end of the command")


async def _pump_stdin(process: Process) -> None:
    chunks = local_terminal.read_ahead(STDIN)
    while data := await chunks.get():
        if not await process.send_stdin(data):
            return
    await process.close_stdin()


async def _pump_keys(process: Process) -> None:
    while True:
        await local_terminal.readable(STDIN)
        try:
            keys = os.read(STDIN, local_terminal.READ_BYTES)
        except OSError:  # the window was closed
            keys = b""
        if not keys:
            await process.signal("SIGKILL")
            return
        await process.send_keys(keys)


async def _follow_size(process: Process, resized: asyncio.Queue[int]) -> None:
    while True:
        await resized.get()
        await process.resize(*local_terminal.size(STDIN))


async def _stay(keep_alive: Callable[[], object]) -> None:
    while True:
        await asyncio.to_thread(keep_alive)
        await asyncio.sleep(KEEP_ALIVE_EVERY_S)


class _Interruption:
    """`number` is the signal that ended the command, if one did."""

    def __init__(self, process: Process, caught: asyncio.Queue[int]) -> None:
        self._process, self._caught = process, caught
        self.number: int | None = None

    async def watch(self) -> None:
        self.number = await self._caught.get()
        await self._process.signal("SIGTERM")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await self._caught.get()
        await self._process.signal("SIGKILL")
        await self._caught.get()
        os._exit(SIGNALLED + self.number)  # neither the sandbox nor our own output moves any more


@contextmanager
def _caught(*numbers: signal.Signals) -> Generator[asyncio.Queue[int]]:
    """Signals as a queue; a burst of them counts once or twice, which is all that anybody looks at."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=3)

    def put(number: int) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            queue.put_nowait(number)

    for number in numbers:
        loop.add_signal_handler(number, put, int(number))
    try:
        yield queue
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
