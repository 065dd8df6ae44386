"""Contract 3.2, 3.3, 6.2.2: terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from e2b import AsyncSandbox, CommandExitException, NotFoundException, PtySize, Sandbox

from .processes import alive, dead_at_last, eventually
from .wire import Frame, Run, Wire, command, shell, to_base64, unbase64

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

START = "process.Process/Start"
SERVICE = "process.Process"
SIZE = {"size": {"cols": 100, "rows": 30}}
LIMIT = 1 << 20  # characters that a test reads at most before it gives up


def read_until(arriving: Iterator[Frame], text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        assert len(seen) < LIMIT
        event = next(arriving).event
        assert "end" not in event, f"the terminal ended before {text!r}: {seen!r}"
        seen += unbase64(event.get("data", {}).get("pty", ""))
    return seen


def test_output_comes_as_pty_events_only(wire: Wire) -> None:
    run = wire.run(command("/bin/sh", "-c", "echo out; echo err >&2; test -t 0 && test -t 1 && echo tty", pty=SIZE))
    assert run.pty == b"out\r\nerr\r\ntty\r\n"
    assert (run.stdout, run.stderr) == (b"", b"")
    assert run.end == {"exited": True, "status": "exit status 0"}


def test_size_is_the_one_asked_for(wire: Wire) -> None:
    assert wire.run(command("/bin/stty", "size", pty=SIZE)).pty == b"30 100\r\n"


def test_exit_code_and_signal_of_a_terminal(wire: Wire) -> None:
    assert (wire.run(command("/bin/sh", "-c", "exit 3", pty=SIZE)).end or {})["exitCode"] == 3
    assert (wire.run(command("/bin/sh", "-c", "kill -KILL $$", pty=SIZE)).end or {})["status"] == "signal: killed"


def test_terminal_is_the_controlling_one(wire: Wire) -> None:
    run = wire.run(command("/bin/sh", "-c", "ps -o sid=,pgid=,tpgid=,pid= -p $$; echo x > /dev/tty", pty=SIZE))
    session, group, foreground, pid = run.pty.split()[:4]
    assert session == group == foreground == pid
    assert run.pty.endswith(b"x\r\n")


def test_terminal_belongs_to_the_user(wire: Wire) -> None:
    run = wire.run(command("/bin/sh", "-c", 'stat -c %U "$(tty)"', pty=SIZE))
    assert run.pty.strip() == b"user"


def test_input_goes_to_the_terminal(wire: Wire) -> None:
    with wire.stream(START, command("/bin/sh", pty=SIZE)) as arriving:
        pid = next(arriving).event["start"]["pid"]
        line = "ZWNobyAkKCgyMSAqIDIpKQo="  # echo $((21 * 2))
        wire.ok(f"{SERVICE}/SendInput", {"process": {"pid": pid}, "input": {"pty": line}})
        read_until(arriving, b"42\r\n")
        wire.ok(f"{SERVICE}/SendInput", {"process": {"pid": pid}, "input": {"pty": "BA=="}})  # Ctrl+D
        assert Run.of(list(arriving)).end is not None


def test_ctrl_c_interrupts_the_foreground(wire: Wire) -> None:
    with wire.stream(START, command("/bin/sh", "-c", "echo go; exec sleep 600", pty=SIZE)) as arriving:
        pid = next(arriving).event["start"]["pid"]
        read_until(arriving, b"go")
        wire.ok(f"{SERVICE}/SendInput", {"process": {"pid": pid}, "input": {"pty": "Aw=="}})
        assert (Run.of(list(arriving)).end or {})["status"] == "signal: interrupt"


def test_stdin_input_to_a_terminal_is_an_internal_error(wire: Wire) -> None:
    with wire.stream(START, command("/bin/cat", pty=SIZE)) as arriving:
        pid = next(arriving).event["start"]["pid"]
        wrong = {"process": {"pid": pid}, "input": {"stdin": "aGkK"}}
        assert wire.refused(f"{SERVICE}/SendInput", wrong)[:2] == (500, "internal")
        wire.ok(f"{SERVICE}/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})


def test_update_resizes_and_tells_the_process(wire: Wire) -> None:
    line = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    with wire.stream(START, command("/bin/sh", "-c", line, pty=SIZE)) as arriving:
        pid = next(arriving).event["start"]["pid"]
        read_until(arriving, b"ready")
        resize = {"process": {"pid": pid}, "pty": {"size": {"cols": 42, "rows": 7}}}
        assert wire.ok(f"{SERVICE}/Update", resize) == {}
        read_until(arriving, b"7 42\r\n")
        assert Run.of(list(arriving)).end is not None


def test_update_of_an_unknown_process_is_not_found(wire: Wire, sandbox: Sandbox) -> None:
    assert wire.refused(f"{SERVICE}/Update", {"process": {"pid": 4_000_000}, "pty": SIZE})[1] == "not_found"
    with pytest.raises(NotFoundException):
        sandbox.pty.resize(4_000_000, PtySize(rows=1, cols=1))


def test_update_of_a_process_without_a_terminal_is_an_error(wire: Wire) -> None:
    with wire.stream(START, shell("exec sleep 600")) as arriving:
        pid = next(arriving).event["start"]["pid"]
        assert wire.refused(f"{SERVICE}/Update", {"process": {"pid": pid}, "pty": SIZE})[0] >= 400
        wire.ok(f"{SERVICE}/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})


@pytest.mark.parametrize("size", [{}, {"size": {}}, {"size": {"cols": 4_000_000_000, "rows": 1}}])
def test_odd_sizes_do_no_harm(wire: Wire, size: dict[str, object]) -> None:
    run = wire.run(command("/bin/echo", "hi", pty=size))
    assert run.error is not None or run.pty == b"hi\r\n"


def test_kill_of_a_terminal_ends_what_runs_in_it(wire: Wire, folder: Path) -> None:
    line = f"sleep 600 & echo $! > {folder}/child; echo ready; wait"
    with wire.stream(START, command("/bin/sh", "-c", line, pty=SIZE)) as arriving:
        pid = next(arriving).event["start"]["pid"]
        read_until(arriving, b"ready")
        wire.ok(f"{SERVICE}/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
        assert Run.of(list(arriving)).end is not None
    child = int((folder / "child").read_text())
    eventually(lambda: not alive(child), "the background job is dead")


def test_kill_of_a_terminal_reaches_job_control_groups(wire: Wire, folder: Path) -> None:
    with wire.stream(START, command("/bin/bash", "--norc", "-i", pty=SIZE)) as arriving:
        pid = next(arriving).event["start"]["pid"]
        text = f"sleep 600 & echo $! > {folder}/child; echo rea''dy\n"
        send = {"process": {"pid": pid}, "input": {"pty": to_base64(text)}}
        wire.ok(f"{SERVICE}/SendInput", send)
        read_until(arriving, b"ready")
        wire.ok(f"{SERVICE}/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
        list(arriving)
    with dead_at_last(int((folder / "child").read_text())) as job:
        eventually(lambda: not alive(job), "the job in a group of its own is dead", 3)


def test_client_creates_types_resizes_and_kills(sandbox: Sandbox) -> None:
    handle = sandbox.pty.create(PtySize(rows=24, cols=80), cwd="/", envs={"MARK": "m1"})
    seen = bytearray()
    sandbox.pty.resize(handle.pid, PtySize(rows=11, cols=55))
    sandbox.pty.send_stdin(handle.pid, b'echo "$TERM/$LANG/$MARK/$(pwd)/$(stty size)"; exit 6\n')
    with pytest.raises(CommandExitException) as caught:
        handle.wait(on_pty=seen.extend)
    assert caught.value.exit_code == 6
    assert b"xterm-256color/C.UTF-8/m1///11 55" in seen
    assert sandbox.pty.kill(4_000_000) is False


def test_client_reconnects_to_a_terminal(sandbox: Sandbox) -> None:
    handle = sandbox.pty.create(PtySize(rows=24, cols=80))
    handle.disconnect()
    again = sandbox.pty.connect(handle.pid)
    sandbox.pty.send_stdin(handle.pid, b"echo a''gain; exit\n")
    seen = bytearray()
    again.wait(on_pty=seen.extend)
    assert b"again\r\n" in seen


def test_client_streams_input_to_a_terminal(sandbox: Sandbox) -> None:
    handle = sandbox.pty.create(PtySize(rows=24, cols=80))
    sandbox.pty.stream_input(handle.pid, ["echo o", b"ne''two", "; exit\n"])
    seen = bytearray()
    handle.wait(on_pty=seen.extend)
    assert b"onetwo\r\n" in seen


@pytest.mark.anyio
async def test_async_terminal(async_sandbox: Callable[[], AsyncSandbox]) -> None:
    sandbox = async_sandbox()
    seen = bytearray()
    handle = await sandbox.pty.create(PtySize(rows=24, cols=80), on_data=seen.extend, user="root")
    await sandbox.pty.send_stdin(handle.pid, b"id -u; exit\n")
    await handle.wait()
    assert b"0\r\n" in seen
