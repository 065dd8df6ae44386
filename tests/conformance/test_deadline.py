"""Contract 3.3, 6.2.2: keepalives, and what Connect-Timeout-Ms ends and what not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from e2b import Sandbox, TimeoutException

from .processes import alive, eventually
from .wire import Run, Wire, command, shell

if TYPE_CHECKING:
    from pathlib import Path

START = "process.Process/Start"
CONNECT = "process.Process/Connect"
KILL = "process.Process/SendSignal"


def kill(wire: Wire, pid: int | None) -> None:
    wire.ok(KILL, {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})


def test_deadline_kills_the_process_and_ends_the_stream(wire: Wire) -> None:
    began = time.monotonic()
    run = wire.run(shell("exec sleep 600"), Connect_Timeout_Ms="300")
    assert 0.25 < time.monotonic() - began < 5
    assert run.error is not None
    assert run.error["code"] == "deadline_exceeded"
    assert run.pid is not None
    eventually(lambda: not alive(run.pid or 0), "the process is dead")


def test_deadline_kills_the_whole_group(wire: Wire, folder: Path) -> None:
    line = f"sleep 600 & echo $! > {folder}/child; wait"
    run = wire.run(shell(line), Connect_Timeout_Ms="500")
    child = int((folder / "child").read_text())
    assert run.error is not None
    eventually(lambda: not alive(child), "the child is dead too")


def test_deadline_kills_a_process_that_ignores_term(wire: Wire) -> None:
    run = wire.run(shell("trap '' TERM; while :; do sleep 0.1; done"), Connect_Timeout_Ms="400")
    eventually(lambda: not alive(run.pid or 0), "the process is dead")


def test_deadline_holds_after_the_client_has_left(wire: Wire) -> None:
    with wire.stream(START, shell("exec sleep 600"), Connect_Timeout_Ms="600") as arriving:
        pid = next(arriving).event["start"]["pid"]
    assert alive(pid)
    eventually(lambda: not alive(pid), "the deadline came all the same", 5)


def test_a_process_that_ends_in_time_is_not_touched(wire: Wire) -> None:
    run = wire.run(shell("echo hi"), Connect_Timeout_Ms="60000")
    assert (run.stdout, run.error) == (b"hi\n", None)


@pytest.mark.parametrize("header", [{}, {"Connect_Timeout_Ms": "0"}])
def test_zero_or_no_deadline_is_none(wire: Wire, header: dict[str, str]) -> None:
    run = wire.run(shell("sleep 0.3; echo hi"), **header)
    assert (run.stdout, run.error) == (b"hi\n", None)


def test_grpc_timeout_is_ignored(wire: Wire) -> None:
    run = wire.run(shell("sleep 0.3; echo hi"), grpc_timeout="1m")
    assert (run.stdout, run.error) == (b"hi\n", None)


def test_deadline_of_connect_ends_only_the_stream(wire: Wire) -> None:
    with wire.stream(START, shell("exec sleep 600")) as arriving:
        pid = next(arriving).event["start"]["pid"]
    late = wire.collect(CONNECT, {"process": {"pid": pid}}, Connect_Timeout_Ms="300")
    assert late.error is not None
    assert late.error["code"] == "deadline_exceeded"
    assert alive(pid)
    kill(wire, pid)


@pytest.mark.parametrize("value", ["-5", "x", "99999999999999999999"])
def test_odd_deadlines_do_no_harm(wire: Wire, value: str) -> None:
    headers = wire.headers({"Content-Type": "application/connect+json", "Connect-Timeout-Ms": value})
    body = b'{"process":{"cmd":"/bin/true"},"stdin":false}'
    response = wire.http.post(f"/{START}", content=b"\0" + len(body).to_bytes(4, "big") + body, headers=headers)
    assert response.status_code in (200, 400)
    assert wire.http.get("/health").status_code == 204


def test_keepalive_comes_after_the_idle_seconds_of_the_header(wire: Wire) -> None:
    with wire.stream(START, shell("exec sleep 600"), Keepalive_Ping_Interval="1") as arriving:
        pid = next(arriving).event["start"]["pid"]
        began = time.monotonic()
        assert [next(arriving).event, next(arriving).event] == [{"keepalive": {}}, {"keepalive": {}}]
        assert 1.5 < time.monotonic() - began < 6
        kill(wire, pid)
        assert Run.of([*arriving]).end is not None


def test_keepalive_waits_while_there_is_data(wire: Wire) -> None:
    line = "for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done"
    run = wire.run(shell(line), Keepalive_Ping_Interval="1")
    assert {"keepalive": {}} not in run.events
    assert run.stdout == b"1\n2\n3\n4\n5\n6\n"


def test_keepalive_comes_on_connect_too(wire: Wire) -> None:
    with wire.stream(START, shell("exec sleep 600")) as first:
        pid = next(first).event["start"]["pid"]
        with wire.stream(CONNECT, {"process": {"pid": pid}}, Keepalive_Ping_Interval="1") as arriving:
            assert [next(arriving).event, next(arriving).event] == [{"start": {"pid": pid}}, {"keepalive": {}}]
        kill(wire, pid)


@pytest.mark.parametrize("value", ["0", "-1", "x", "99999999999999999999"])
def test_odd_keepalive_intervals_do_no_harm(wire: Wire, value: str) -> None:
    run = wire.run(command("/bin/echo", "hi", stdin=False), Keepalive_Ping_Interval=value)
    assert run.stdout == b"hi\n"
    assert run.events.count({"keepalive": {}}) == 0


def test_client_timeout_zero_is_unlimited(sandbox: Sandbox) -> None:
    assert sandbox.commands.run("sleep 0.2; echo hi", timeout=0).stdout == "hi\n"


def test_client_timeout_raises_and_the_process_is_gone(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("exec sleep 600", background=True, timeout=1)
    with pytest.raises(TimeoutException):
        handle.wait()
    eventually(lambda: not alive(handle.pid), "the process is dead")


def test_client_connect_timeout_leaves_the_process(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("exec sleep 600", background=True, timeout=0)
    handle.disconnect()
    with pytest.raises(TimeoutException):
        sandbox.commands.connect(handle.pid, timeout=1).wait()
    assert alive(handle.pid)
    assert sandbox.commands.kill(handle.pid)
