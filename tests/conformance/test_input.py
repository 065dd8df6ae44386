"""Contract 3.2, 3.3, 6.2.2: bytes on their way to a process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from e2b import AsyncSandbox, NotFoundException, Sandbox, SandboxException

from .processes import alive, eventually
from .wire import Frame, Upstream, Wire, command, joined, shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .daemon import Daemon

START = "process.Process/Start"
SERVICE = "process.Process"
NOBODY = 4_000_000  # above the kernel's largest pid here
INPUT_BYTES = 8 << 20


def to_stdin(pid: int, text: str) -> dict[str, object]:
    return {"process": {"pid": pid}, "input": {"stdin": text}}


def data(text: str) -> dict[str, object]:
    return {"data": {"input": {"stdin": text}}}


def started(arriving: Iterator[Frame]) -> int:
    return next(arriving).event["start"]["pid"]


def test_absent_stdin_field_means_an_open_pipe(wire: Wire) -> None:
    with wire.stream(START, command("/bin/cat")) as arriving:
        pid = started(arriving)
        wire.ok(f"{SERVICE}/SendInput", to_stdin(pid, "aGkK"))
        assert next(arriving).event == {"data": {"stdout": "aGkK"}}
        wire.ok(f"{SERVICE}/CloseStdin", {"process": {"pid": pid}})
        assert next(arriving).event["end"]["exited"]


def test_stdin_false_is_dev_null(wire: Wire) -> None:
    assert wire.run(shell("readlink /proc/self/fd/0")).stdout == b"/dev/null\n"
    assert wire.run(command("/bin/cat", stdin=False)).end == {"exited": True, "status": "exit status 0"}


def test_stdin_true_is_a_pipe(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("cat; echo done", background=True, stdin=True)
    handle.send_stdin("a")
    sandbox.commands.send_stdin(handle.pid, b"b\n")
    handle.close_stdin()
    assert handle.wait().stdout == "ab\ndone\n"


def test_input_to_a_process_without_a_pipe_is_an_error(wire: Wire) -> None:
    with wire.stream(START, shell("exec sleep 600")) as arriving:
        pid = started(arriving)
        assert wire.refused(f"{SERVICE}/SendInput", to_stdin(pid, "aGk="))[:2] == (500, "internal")
        wrong_kind = {"process": {"pid": pid}, "input": {"pty": "aGk="}}
        assert wire.refused(f"{SERVICE}/SendInput", wrong_kind)[:2] == (500, "internal")
        wire.ok(f"{SERVICE}/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})


def test_input_to_an_unknown_process_is_not_found(wire: Wire, sandbox: Sandbox) -> None:
    status, code, message = wire.refused(f"{SERVICE}/SendInput", to_stdin(NOBODY, "aGk="))
    assert (status, code) == (404, "not_found")
    assert str(NOBODY) in message
    with pytest.raises(NotFoundException):
        sandbox.commands.send_stdin(NOBODY, "x")


def test_empty_input_is_not_an_end_of_file(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    handle.send_stdin("")
    handle.send_stdin("x")
    handle.close_stdin()
    assert handle.wait().stdout == "x"


def test_close_stdin_twice_is_fine(wire: Wire) -> None:
    with wire.stream(START, shell("cat; exec sleep 600", stdin=True)) as arriving:
        process = {"process": {"pid": started(arriving)}}
        assert wire.ok(f"{SERVICE}/CloseStdin", process) == {}
        assert wire.ok(f"{SERVICE}/CloseStdin", process) == {}
        wire.ok(f"{SERVICE}/SendSignal", {**process, "signal": "SIGNAL_SIGKILL"})


def test_input_after_close_is_an_error(wire: Wire) -> None:
    with wire.stream(START, shell("cat; exec sleep 600", stdin=True)) as arriving:
        pid = started(arriving)
        wire.ok(f"{SERVICE}/CloseStdin", {"process": {"pid": pid}})
        assert wire.call(f"{SERVICE}/SendInput", to_stdin(pid, "aGk=")).status_code >= 400
        wire.ok(f"{SERVICE}/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})


def test_close_stdin_of_a_terminal_advises_ctrl_d(wire: Wire) -> None:
    with wire.stream(START, command("/bin/cat", pty={"size": {"cols": 80, "rows": 24}})) as arriving:
        pid = started(arriving)
        assert "Ctrl+D" in wire.refused(f"{SERVICE}/CloseStdin", {"process": {"pid": pid}})[2]
        wire.ok(f"{SERVICE}/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})


def test_input_that_the_process_does_not_read_holds_up_nobody_else(wire: Wire) -> None:
    with wire.stream(START, shell("exec sleep 600", stdin=True)) as arriving:
        pid = started(arriving)
        big = "A" * (INPUT_BYTES // 3 * 4)  # far beyond what a pipe holds
        sender = threading.Thread(target=lambda: Wire(wire.daemon).call(f"{SERVICE}/SendInput", to_stdin(pid, big)))
        sender.start()
        assert wire.ok(f"{SERVICE}/List", {})["processes"]
        wire.ok(f"{SERVICE}/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
        sender.join(10)
        assert not sender.is_alive()


def test_big_input_arrives_whole(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("wc -c", background=True, stdin=True)
    for _ in range(8):
        handle.send_stdin(b"x" * (INPUT_BYTES // 8))
    handle.close_stdin()
    assert handle.wait().stdout.strip() == str(INPUT_BYTES)


def test_stream_input_applies_frames_as_they_arrive(wire: Wire) -> None:
    with wire.stream(START, command("/bin/cat", stdin=True)) as arriving:
        pid = started(arriving)
        upstream = Upstream(wire.daemon, f"{SERVICE}/StreamInput")
        upstream.send({"start": {"process": {"pid": pid}}})
        for text in ("b25l", "dHdv"):
            upstream.send(data(text))
            assert next(arriving).event == {"data": {"stdout": text}}  # while the request is still open
        upstream.send({"keepalive": {}})
        first, end = upstream.finish()
        assert (first.json, end.json) == ({}, {})
        wire.ok(f"{SERVICE}/CloseStdin", {"process": {"pid": pid}})


def test_stream_input_leaves_stdin_open_when_it_ends(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    sandbox.commands.stream_input(handle.pid, ["one ", b"two "])
    sandbox.commands.stream_input(handle.pid, ["three"])
    handle.close_stdin()
    assert handle.wait().stdout == "one two three"


def test_stream_input_data_before_start_is_an_error_not_a_crash(wire: Wire) -> None:
    upstream = Upstream(wire.daemon, f"{SERVICE}/StreamInput")
    upstream.send(data("aGk="))
    assert upstream.finish()[-1].json["error"]["code"] in ("invalid_argument", "failed_precondition")
    assert wire.http.get("/health").status_code == 204


def test_stream_input_without_any_frame_is_an_error_not_a_crash(wire: Wire) -> None:
    end = Upstream(wire.daemon, f"{SERVICE}/StreamInput").finish()[-1]
    assert end.ends
    assert wire.http.get("/health").status_code == 204


def test_stream_input_to_an_unknown_process_is_not_found(wire: Wire, sandbox: Sandbox) -> None:
    upstream = Upstream(wire.daemon, f"{SERVICE}/StreamInput")
    upstream.send({"start": {"process": {"pid": NOBODY}}})
    assert upstream.finish()[-1].json["error"]["code"] == "not_found"
    with pytest.raises(NotFoundException):
        sandbox.commands.stream_input(NOBODY, ["x"])


def test_stream_input_to_a_process_without_a_pipe_is_an_error(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("exec sleep 600", background=True)
    with pytest.raises(SandboxException):
        sandbox.commands.stream_input(handle.pid, ["x"])
    assert handle.kill()


def test_stream_input_ends_when_its_client_leaves(wire: Wire, guest: Daemon) -> None:
    with wire.stream(START, command("/bin/cat", stdin=True)) as arriving:
        pid = started(arriving)
        before = guest.descriptors()
        upstream = Upstream(guest, f"{SERVICE}/StreamInput")
        upstream.send({"start": {"process": {"pid": pid}}})
        upstream.send(data("b25l"))
        assert next(arriving).event == {"data": {"stdout": "b25l"}}
        upstream.close()
        eventually(lambda: guest.descriptors() <= before, "the connection is gone")
        wire.ok(f"{SERVICE}/SendInput", to_stdin(pid, "dHdv"))
        assert next(arriving).event == {"data": {"stdout": "dHdv"}}
        wire.ok(f"{SERVICE}/CloseStdin", {"process": {"pid": pid}})


@pytest.mark.anyio
async def test_async_input_handle_sends_in_order(async_sandbox: Callable[[], AsyncSandbox], folder: Path) -> None:
    sandbox = async_sandbox()
    handle = await sandbox.commands.run(f"cat > {folder}/out", background=True, stdin=True)
    async with sandbox.commands.stream_input(handle.pid) as stream:
        for i in range(200):
            await stream.send(f"{i}\n")
    await handle.close_stdin()
    await handle.wait()
    assert (folder / "out").read_text() == "".join(f"{i}\n" for i in range(200))


def test_two_writers_do_not_mix_within_one_message(wire: Wire) -> None:
    """A frame is written whole before the next one: lines below a pipe's atomic size stay lines."""
    with wire.stream(START, shell("head -n 400", stdin=True)) as arriving:
        pid = started(arriving)

        def write(letter: str) -> None:
            caller = Wire(wire.daemon)
            line = {"a": "YWFhYWFhYWFhYWFhCg==", "b": "YmJiYmJiYmJiYmJiCg=="}[letter]
            for _ in range(200):
                caller.ok(f"{SERVICE}/SendInput", to_stdin(pid, line))

        writers = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
        for writer in writers:
            writer.start()
        events = [frame.event for frame in arriving if not frame.ends]
        for writer in writers:
            writer.join(10)
    assert sorted(set(joined(events, "stdout").split())) == [b"a" * 12, b"b" * 12]
    assert not alive(pid)
