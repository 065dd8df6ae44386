"""Terminals."""

import asyncio
from collections.abc import Iterator

import pytest
from e2b import AsyncSandbox, CommandExitException, PtySize, Sandbox
from e2b.sandbox_sync.commands.command_handle import CommandHandle


def read_until(terminal: Iterator[tuple[object, object, bytes]], mark: bytes) -> bytes:
    """Everything that the terminal shows up to `mark`; the test's own deadline bounds it."""
    shown = b""
    for _, _, chunk in terminal:
        shown += chunk or b""
        if mark in shown:
            return shown
    raise AssertionError(f"the terminal ended before {mark!r}: {shown!r}")


class Terminal:
    """A shell on a terminal, and what it has shown."""

    def __init__(self, box: Sandbox, handle: CommandHandle) -> None:
        self.box, self.handle, self.chunks = box, handle, iter(handle)

    def ask(self, command: str) -> str:
        """Type a command; its output. The marks are typed in halves so that the echo does not contain them."""
        self.box.pty.send_stdin(self.handle.pid, f'echo "<<""<<"; {command}; echo ">>"">>"\n'.encode())
        shown = read_until(self.chunks, b">>>>\r\n").decode()
        return shown.rpartition("<<<<\r\n")[2].partition(">>>>\r\n")[0].strip()


@pytest.fixture
def terminal(box: Sandbox) -> Iterator[Terminal]:
    handle = box.pty.create(PtySize(rows=30, cols=100), cwd="/tmp", envs={"GREETING": "hi there"})
    yield Terminal(box, handle)
    box.pty.kill(handle.pid)


@pytest.mark.covers("T01")
def test_a_terminal_has_the_size_asked_for(terminal: Terminal) -> None:
    assert terminal.ask("tput cols") == "100"
    assert terminal.ask("tput lines") == "30"


@pytest.mark.covers("T01")
def test_a_terminal_has_the_environment_directory_and_kind_asked_for(terminal: Terminal) -> None:
    assert terminal.ask('echo "$GREETING|$PWD|$TERM|$(id -un)"') == "hi there|/tmp|xterm-256color|user"
    assert terminal.ask("tty").startswith("/dev/pts/")


@pytest.mark.covers("T01")
def test_a_terminal_runs_as_the_user_asked_for(box: Sandbox) -> None:
    handle = box.pty.create(PtySize(rows=24, cols=80), user="root")
    assert Terminal(box, handle).ask("id").startswith("uid=0(root)")
    box.pty.kill(handle.pid)


@pytest.mark.covers("T02")
def test_what_is_typed_is_echoed_and_control_c_interrupts(terminal: Terminal) -> None:
    # What is interrupted announces itself: a Ctrl-C while the shell is still starting it would be lost.
    typed = b"""sh -c "echo wait''ing; exec sleep 100"\n"""
    terminal.box.pty.send_stdin(terminal.handle.pid, typed)
    assert typed.strip() in read_until(terminal.chunks, b"waiting\r\n")
    terminal.box.pty.send_stdin(terminal.handle.pid, b"\x03")
    # Typing on while the shell changes the terminal's mode can read as end of input: the kernel's own race.
    read_until(terminal.chunks, b"$ ")
    assert terminal.ask("echo at once") == "at once"


@pytest.mark.covers("T02")
def test_input_streams_into_a_terminal(terminal: Terminal) -> None:
    terminal.box.pty.stream_input(terminal.handle.pid, ["echo $((40", " + 2)) bad", "gers\n"])
    assert b"42 badgers" in read_until(terminal.chunks, b"42 badgers")


@pytest.mark.covers("T03")
def test_a_terminal_can_be_resized(terminal: Terminal) -> None:
    assert terminal.ask("tput cols") == "100"
    terminal.box.pty.resize(terminal.handle.pid, PtySize(rows=50, cols=133))
    assert terminal.ask("tput cols") == "133"
    assert terminal.ask("tput lines") == "50"


@pytest.mark.covers("T04")
def test_a_second_client_sees_the_same_terminal(terminal: Terminal) -> None:
    terminal.ask("remembered=yes")
    terminal.handle.disconnect()
    other = Sandbox.connect(terminal.box.sandbox_id)
    again = Terminal(other, other.pty.connect(terminal.handle.pid))
    assert again.ask('echo "state: $remembered"') == "state: yes"


@pytest.mark.covers("T05")
def test_a_terminal_can_be_killed(box: Sandbox) -> None:
    handle = box.pty.create(PtySize(rows=24, cols=80))
    assert box.pty.kill(handle.pid) is True
    with pytest.raises(CommandExitException):
        handle.wait()
    assert box.pty.kill(handle.pid) is False


@pytest.mark.covers("T05")
def test_leaving_the_shell_ends_the_terminal_with_its_exit_code(box: Sandbox) -> None:
    handle = box.pty.create(PtySize(rows=24, cols=80))
    box.pty.send_stdin(handle.pid, b"exit 4\n")
    with pytest.raises(CommandExitException) as failure:
        handle.wait()
    assert failure.value.exit_code == 4


@pytest.mark.anyio
@pytest.mark.covers("T01", "T02", "T03", "T04", "T05")
async def test_the_async_client_has_terminals_too(box: Sandbox) -> None:
    sandbox = await AsyncSandbox.connect(box.sandbox_id)
    shown = bytearray()
    seen = asyncio.Condition()

    async def show(chunk: bytes) -> None:
        async with seen:
            shown.extend(chunk)
            seen.notify_all()

    async def wait_for(mark: bytes) -> None:
        async with asyncio.timeout(30), seen:
            await seen.wait_for(lambda: mark in shown)

    handle = await sandbox.pty.create(PtySize(rows=20, cols=90), on_data=show)
    await sandbox.pty.send_stdin(handle.pid, b"echo wi''dth $(tput cols)\n")
    await wait_for(b"width 90\r\n")
    await sandbox.pty.resize(handle.pid, PtySize(rows=20, cols=111))
    await sandbox.pty.send_stdin(handle.pid, b"echo wi''dth $(tput cols)\n")
    await wait_for(b"width 111\r\n")
    await handle.disconnect()
    again = await sandbox.pty.connect(handle.pid, on_data=show)
    await sandbox.pty.send_stdin(handle.pid, b"echo re''joined\n")
    await wait_for(b"rejoined")
    assert await sandbox.pty.kill(again.pid) is True
    with pytest.raises(CommandExitException):
        await again.wait()
