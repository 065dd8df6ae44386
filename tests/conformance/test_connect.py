"""Contract 3.3, 6.2.2: coming back to a process, the list of them, and what a late one gets to see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from e2b import AsyncSandbox, CommandExitException, NotFoundException, Sandbox

from .processes import alive, eventually
from .wire import Frame, Run, Wire, joined, shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

START = "process.Process/Start"
CONNECT = "process.Process/Connect"
LIST = "process.Process/List"


def started(arriving: Iterator[Frame]) -> int:
    return next(arriving).event["start"]["pid"]


def background(wire: Wire, body: dict[str, object]) -> int:
    """Start a process and leave at once."""
    with wire.stream(START, body) as arriving:
        return started(arriving)


def pids(wire: Wire) -> list[int]:
    return [process["pid"] for process in wire.ok(LIST, {}).get("processes", [])]


def send(wire: Wire, pid: int, text: str) -> None:
    wire.ok("process.Process/SendInput", {"process": {"pid": pid}, "input": {"stdin": text}})


def close(wire: Wire, pid: int) -> None:
    wire.ok("process.Process/CloseStdin", {"process": {"pid": pid}})


def test_process_survives_its_client(wire: Wire, folder: Path) -> None:
    pid = background(wire, shell(f"read x; echo $x > {folder}/out", stdin=True))
    assert alive(pid)
    send(wire, pid, "aGkK")
    eventually(lambda: (folder / "out").exists() and (folder / "out").read_text() == "hi\n", "it went on")


def test_connect_begins_with_start_and_gives_only_new_output(wire: Wire) -> None:
    with wire.stream(START, shell("echo old; cat", stdin=True)) as first:
        pid = started(first)
        assert next(first).event == {"data": {"stdout": "b2xkCg=="}}
        with wire.stream(CONNECT, {"process": {"pid": pid}}) as second:
            assert next(second).event == {"start": {"pid": pid}}
            send(wire, pid, "bmV3Cg==")
            assert next(second).event == {"data": {"stdout": "bmV3Cg=="}}
            close(wire, pid)
            assert next(second).event["end"]["exited"]
            assert next(second).json == {}
        assert Run.of(list(first)).stdout == b"new\n"


def test_several_subscribers_get_everything(wire: Wire) -> None:
    with wire.stream(START, shell("read x; seq 2000", stdin=True)) as first:
        pid = started(first)
        selector = {"process": {"pid": pid}}
        with wire.stream(CONNECT, selector) as second, wire.stream(CONNECT, selector) as third:
            assert started(second) == started(third) == pid
            send(wire, pid, "Cg==")
            runs = [Run.of(list(one)) for one in (first, second, third)]
    expected = "".join(f"{i}\n" for i in range(1, 2001)).encode()
    assert [run.stdout for run in runs] == [expected] * 3
    assert all(run.end for run in runs)


def test_output_that_nobody_reads_does_not_stop_the_process(wire: Wire, folder: Path) -> None:
    background(wire, shell(f"read x; head -c 50000000 /dev/zero; echo ok > {folder}/done", stdin=True))
    send(wire, pids(wire)[-1], "Cg==")
    eventually(lambda: (folder / "done").exists(), "it wrote all of its output", 20)


def test_finished_process_can_be_connected_to_for_a_while(wire: Wire) -> None:
    pid = wire.run(shell("echo gone; exit 5")).pid
    late = wire.collect(CONNECT, {"process": {"pid": pid}})
    assert late.pid == pid
    assert late.end == {"exitCode": 5, "exited": True, "status": "exit status 5", "error": "exit status 5"}
    assert late.stdout == b""


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_finished_process_is_forgotten_after_half_a_minute(wire: Wire) -> None:
    pid = wire.run(shell("true")).pid

    def forgotten() -> bool:
        return wire.collect(CONNECT, {"process": {"pid": pid}}).error is not None

    eventually(forgotten, "the finished process is forgotten", 60)
    error = wire.collect(CONNECT, {"process": {"pid": pid}}).error
    assert error is not None
    assert error["code"] == "not_found"


def test_connect_through_the_client(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("read x; echo got $x; exit 4", background=True, stdin=True)
    handle.disconnect()
    again = sandbox.commands.connect(handle.pid)
    sandbox.commands.send_stdin(handle.pid, "it\n")
    with pytest.raises(CommandExitException) as caught:
        again.wait()
    assert (caught.value.stdout, caught.value.exit_code) == ("got it\n", 4)


def test_unknown_pid_is_not_found_with_its_text(wire: Wire, sandbox: Sandbox) -> None:
    run = wire.collect(CONNECT, {"process": {"pid": 4_000_000}})
    assert run.error == {"code": "not_found", "message": "process with pid 4000000 not found"}
    with pytest.raises(NotFoundException):
        sandbox.commands.connect(4_000_000)


def test_connect_by_tag_finds_the_right_one_of_many(wire: Wire) -> None:
    one = background(wire, shell("exec sleep 600", tag="one"))
    two = background(wire, shell("exec sleep 600", tag="two"))
    for tag, pid in (("two", two), ("one", one)):
        with wire.stream(CONNECT, {"process": {"tag": tag}}) as arriving:
            assert started(arriving) == pid
    missing = wire.collect(CONNECT, {"process": {"tag": "three"}})
    assert missing.error is not None
    assert missing.error["code"] == "not_found"
    assert "three" in missing.error["message"]


def test_list_has_config_pid_and_tag_of_living_processes(wire: Wire, sandbox: Sandbox) -> None:
    body = shell("exec sleep 600", tag="mine", cwd="/", envs={"A": "1"})
    pid = background(wire, body)
    found = next(process for process in wire.ok(LIST, {})["processes"] if process["pid"] == pid)
    assert found == {"config": body["process"], "pid": pid, "tag": "mine"}
    listed = next(process for process in sandbox.commands.list() if process.pid == pid)
    assert (listed.tag, listed.cmd, listed.args) == ("mine", "/bin/sh", ["-c", "exec sleep 600"])
    assert (listed.cwd, listed.envs) == ("/", {"A": "1"})
    sandbox.commands.kill(pid)
    eventually(lambda: pid not in pids(wire), "the dead process left the list")


def test_list_without_a_tag_has_no_tag_field(wire: Wire, sandbox: Sandbox) -> None:
    pid = background(wire, shell("exec sleep 600"))
    assert "tag" not in next(process for process in wire.ok(LIST, {})["processes"] if process["pid"] == pid)
    assert next(process for process in sandbox.commands.list() if process.pid == pid).tag is None


def test_replay_gives_earlier_output_first(wire: Wire) -> None:
    with wire.stream(START, shell("echo one; echo two >&2; cat", stdin=True)) as first:
        pid = started(first)
        seen = [next(first).event, next(first).event]
        assert joined(seen, "stdout") + joined(seen, "stderr") == b"one\ntwo\n"
        with wire.stream(CONNECT, {"process": {"pid": pid}}, Warren_Replay_Bytes="65536") as late:
            assert started(late) == pid
            replayed = [next(late).event, next(late).event]
            assert (joined(replayed, "stdout"), joined(replayed, "stderr")) == (b"one\n", b"two\n")
            send(wire, pid, "dGhyZWUK")
            assert next(late).event == {"data": {"stdout": "dGhyZWUK"}}
            close(wire, pid)


def test_replay_is_cut_to_the_newest_bytes_asked_for(wire: Wire) -> None:
    pid = wire.run(shell("seq 1000")).pid
    whole = "".join(f"{i}\n" for i in range(1, 1001)).encode()
    run = wire.collect(CONNECT, {"process": {"pid": pid}}, Warren_Replay_Bytes="100")
    assert run.stdout == whole[-100:]
    assert run.end is not None
    assert wire.collect(CONNECT, {"process": {"pid": pid}}, Warren_Replay_Bytes="1000000").stdout == whole


@pytest.mark.parametrize("value", ["0", "-1", "x", "99999999999999999999", ""])
def test_odd_replay_headers_do_no_harm(wire: Wire, value: str) -> None:
    pid = wire.run(shell("echo hi")).pid
    run = wire.collect(CONNECT, {"process": {"pid": pid}}, Warren_Replay_Bytes=value)
    assert (run.end or run.error) is not None
    assert run.stdout in (b"", b"hi\n")


def test_replay_holds_no_more_than_its_bound(wire: Wire) -> None:
    pid = wire.run(shell("head -c 3000000 /dev/zero")).pid
    run = wire.collect(CONNECT, {"process": {"pid": pid}}, Warren_Replay_Bytes="99999999")
    assert 0 < len(run.stdout) <= 1 << 20


@pytest.mark.anyio
async def test_async_connect_and_list(async_sandbox: Callable[[], AsyncSandbox]) -> None:
    sandbox = async_sandbox()
    handle = await sandbox.commands.run("read x; echo $x", background=True, stdin=True)
    await handle.disconnect()
    again = await sandbox.commands.connect(handle.pid)
    await again.send_stdin("back\n")
    assert (await again.wait()).stdout == "back\n"
    assert await sandbox.commands.kill(4_000_000) is False
