"""The user's own terminal and pipes: raw mode, size, and reading and writing without blocking the event loop."""

import asyncio
import contextlib
import os
import termios
import threading
import tty
from collections.abc import Generator
from contextlib import contextmanager

STDIN, STDOUT, STDERR = 0, 1, 2
READ_BYTES = 128 * 1024
READ_AHEAD = 4
"""Chunks of standard input that wait to be sent."""
DEFAULT_SIZE = (80, 24)

_LEAVE_FULL_SCREEN = b"\x1b[?1049l\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[0m\r\n"
"""Back from the alternate screen, cursor shown, no mouse reports, no bracketed paste: what a program that was cut off
in the middle could not undo itself."""


@contextmanager
def raw(terminal: int) -> Generator[None]:
    """Every key goes through as it is; afterwards the terminal is what it was, whatever happened."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal, termios.TCSADRAIN)  # the default would throw away what was typed ahead
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            os.write(STDOUT, _LEAVE_FULL_SCREEN)
        raise
    finally:
        with contextlib.suppress(termios.error):  # the terminal itself can be gone
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def size(terminal: int) -> tuple[int, int]:
    """Columns and rows."""
    try:
        columns, rows = os.get_terminal_size(terminal)
    except OSError:
        return DEFAULT_SIZE
    return (columns, rows) if columns and rows else DEFAULT_SIZE


async def readable(descriptor: int) -> None:
    """Wait until there is something to read from a terminal."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def write(descriptor: int, data: bytes) -> None:
    """In a thread: a pipe that nobody reads must not make us deaf to Ctrl-C. Raises BrokenPipeError."""
    await asyncio.to_thread(_write_all, descriptor, data)


def read_ahead(descriptor: int) -> asyncio.Queue[bytes]:
    """What comes in, until an empty chunk that means the end. A file or pipe can only be read by a thread, and the
    thread cannot be stopped while it waits: it is a daemon and ends with the program."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue(READ_AHEAD)

    def read() -> None:
        data = b"-"
        while data:
            try:
                data = os.read(descriptor, READ_BYTES)
            except OSError:  # closed, or the terminal's group was left
                data = b""
            with contextlib.suppress(RuntimeError, asyncio.CancelledError):  # the program is ending
                asyncio.run_coroutine_threadsafe(chunks.put(data), loop).result()
                continue
            return

    threading.Thread(target=read, name="stdin", daemon=True).start()
    return chunks


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
