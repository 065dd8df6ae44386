import asyncio
import os
import pty
import signal
import termios
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field

import pytest

from warren.cli import local_terminal, session
from warren.cli.process_stream import Process
from warren.guest.process_event import Ended, Output, ProcessEvent
from warren.model.errors import Unavailable

pytestmark = pytest.mark.anyio


@dataclass
class FakeProcess:
    """Gives the events put into it; remembers the calls. SIGTERM ends it."""

    calls: list[tuple[object, ...]] = field(default_factory=list)
    queue: asyncio.Queue[ProcessEvent | Exception] = field(default_factory=asyncio.Queue)
    dies_of: str = "SIGTERM"

    @property
    async def events(self) -> AsyncGenerator[ProcessEvent]:
        while True:
            event = await self.queue.get()
            if isinstance(event, Exception):
                raise event
            yield event

    def put(self, *events: ProcessEvent | Exception) -> None:
        for event in events:
            self.queue.put_nowait(event)

    async def called(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.calls) < count:
                await asyncio.sleep(0.001)

    async def send_stdin(self, data: bytes) -> bool:
        self.calls.append(("stdin", data))
        return data != b"enough"

    async def send_keys(self, data: bytes) -> bool:
        self.calls.append(("keys", data))
        return True

    async def close_stdin(self) -> None:
        self.calls.append(("close",))

    async def resize(self, columns: int, rows: int) -> None:
        self.calls.append(("resize", columns, rows))

    async def signal(self, name: str) -> None:
        self.calls.append(("signal", name))
        if name == self.dies_of:
            self.put(Ended(99))


async def streams(process: FakeProcess, pass_stdin: bool = False) -> int:
    return await session.run_streams(process, pass_stdin)  # type: ignore[arg-type]


async def terminal(process: FakeProcess) -> int:
    return await session.run_terminal(process, lambda: process.calls.append(("alive",)))  # type: ignore[arg-type]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    read, write = os.pipe()
    monkeypatch.setattr(session, "STDIN", read)
    yield write
    os.close(read)


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    ours, theirs = pty.openpty()
    monkeypatch.setattr(session, "STDIN", theirs)
    before = termios.tcgetattr(theirs)
    yield ours
    assert termios.tcgetattr(theirs) == before
    os.close(theirs)
    os.close(ours)


async def test_output_and_exit_code_pass_through(capfd: pytest.CaptureFixture[str]) -> None:
    process = FakeProcess()
    process.put(Output(b"out\n"), Output(b"err\n", is_error=True), Output(b"more\n"), Ended(5))
    assert await streams(process) == 5
    assert capfd.readouterr() == ("out\nmore\n", "err\n")


async def test_input_passes_until_its_end(stdin: int) -> None:
    process = FakeProcess()
    os.write(stdin, b"abc")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(streams(process, pass_stdin=True))
        await process.called(1)
        os.close(stdin)
        await process.called(2)
        process.put(Ended(0))
    assert running.result() == 0
    assert process.calls == [("stdin", b"abc"), ("close",)]


async def test_a_command_that_wants_no_more_input_gets_none(stdin: int) -> None:
    process = FakeProcess()
    os.write(stdin, b"enough")
    async with asyncio.TaskGroup() as group:
        group.create_task(streams(process, pass_stdin=True))
        await process.called(1)
        process.put(Ended(0))
    assert process.calls == [("stdin", b"enough")]
    os.close(stdin)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_the_command(number: signal.Signals) -> None:
    process = FakeProcess()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(streams(process))
        await asyncio.sleep(0)
        os.kill(os.getpid(), number)
    assert running.result() == 128 + number
    assert process.calls == [("signal", "SIGTERM")]


async def test_a_second_ctrl_c_kills_what_ignores_the_first() -> None:
    process = FakeProcess(dies_of="SIGKILL")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(streams(process))
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGINT)
        await process.called(1)
        os.kill(os.getpid(), signal.SIGINT)
    assert running.result() == 130
    assert process.calls == [("signal", "SIGTERM"), ("signal", "SIGKILL")]


async def test_what_ignores_everything_is_killed_after_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "GRACE_S", 0.01)
    process = FakeProcess(dies_of="SIGKILL")
    async with asyncio.TaskGroup() as group:
        group.create_task(streams(process))
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGINT)
    assert process.calls[-1] == ("signal", "SIGKILL")


async def test_a_reader_that_left_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(session, "STDOUT", write)
    process = FakeProcess()
    process.put(Output(b"y\n"))
    assert await streams(process) == 141
    assert process.calls == [("signal", "SIGKILL")]
    os.close(write)


async def test_a_broken_stream_is_an_error_by_itself() -> None:
    process = FakeProcess()
    process.put(Unavailable("cannot go on"))
    with pytest.raises(ExceptionGroup) as raised:
        await streams(process)
    assert raised.group_contains(Unavailable, match="cannot go on")


async def test_keys_go_inside_raw_and_the_shell_s_exit_code_comes_out(keyboard: int) -> None:
    process = FakeProcess()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(terminal(process))
        await process.called(1)
        os.write(keyboard, b"\x03\r")
        await process.called(2)
        process.put(Output(b"bye"), Ended(3))
    assert running.result() == 3
    assert process.calls == [("alive",), ("keys", b"\x03\r")]


async def test_what_was_typed_before_the_shell_was_there_is_not_lost(keyboard: int) -> None:
    process = FakeProcess()
    os.write(keyboard, b"ls\n")
    async with asyncio.TaskGroup() as group:
        group.create_task(terminal(process))
        await process.called(2)
        process.put(Ended(0))
    assert ("keys", b"ls\n") in process.calls


async def test_the_size_follows_the_window(keyboard: int) -> None:
    process = FakeProcess()
    async with asyncio.TaskGroup() as group:
        group.create_task(terminal(process))
        await process.called(1)
        termios.tcsetwinsize(keyboard, (33, 101))
        os.kill(os.getpid(), signal.SIGWINCH)
        await process.called(2)
        process.put(Ended(0))
    assert process.calls[1] == ("resize", 101, 33)


async def test_the_terminal_is_restored_when_the_sandbox_is_cut_off(
    keyboard: int, capfd: pytest.CaptureFixture[str]
) -> None:
    process = FakeProcess()
    process.put(Unavailable("cannot go on"))
    with pytest.raises(ExceptionGroup):
        await terminal(process)
    assert "\x1b[?1049l" in capfd.readouterr().out  # the fixture checks the modes


async def test_a_terminal_without_a_size_gets_the_usual_one() -> None:
    read, write = os.pipe()
    assert local_terminal.size(read) == (80, 24)
    os.close(read)
    os.close(write)


def test_the_fake_has_every_call_of_the_real_one() -> None:
    calls = {name for name in vars(Process) if not name.startswith("_")}
    assert calls <= set(dir(FakeProcess))
