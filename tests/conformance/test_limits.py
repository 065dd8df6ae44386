"""What a request may ask for at most: beyond it stands an error, not a dead or swollen guestd."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from .processes import eventually
from .wire import END, Frame, Wire, command, envelope, shell, to_base64

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2b import AsyncSandbox

    from .daemon import Daemon

START = "process.Process/Start"
SEND = "process.Process/SendInput"
ROOM = 400 << 20  # bytes for one rejected request of 96 MiB, JSON decoding included
HUGE = 96 << 20


def well(wire: Wire) -> bool:
    return wire.run(command("/bin/echo", "well", stdin=False)).stdout == b"well\n"


def test_arguments_beyond_the_kernels_limit_are_an_error(wire: Wire) -> None:
    run = wire.run(command("/bin/echo", *["x" * 100_000] * 60, stdin=False))
    assert run.error is not None or (run.end or {}).get("exitCode", 0) != 0
    assert well(wire)


@pytest.mark.parametrize(
    "body",
    [
        command("/bin/echo\0x", stdin=False),
        command("/bin/echo", "a\0b", stdin=False),
        command("/bin/echo", stdin=False, envs={"A": "a\0b"}),
        command("/bin/echo", stdin=False, envs={"A=B": "c"}),
        command("/bin/echo", stdin=False, envs={"": "c"}),
        command("/bin/echo", stdin=False, cwd="/\0"),
    ],
    ids=["cmd", "argument", "value", "name", "empty name", "cwd"],
)
def test_text_that_no_process_can_be_given_is_an_error(wire: Wire, body: dict[str, object]) -> None:
    run = wire.run(body)
    assert run.error is not None or (run.end or {}).get("exitCode", 0) != 0
    assert well(wire)


def test_messages_beyond_the_limit_are_resource_exhausted(fresh_wire: Wire) -> None:
    fresh_wire.daemon.reset_peak()
    headers = fresh_wire.headers({"Content-Type": "application/json"})
    response = fresh_wire.http.post("/filesystem.Filesystem/Stat", content=b'{"path":"' + b"x" * HUGE, headers=headers)
    assert (response.status_code, response.json()["code"]) == (429, "resource_exhausted")
    assert fresh_wire.daemon.growth() < ROOM


def test_envelopes_that_announce_too_much_are_resource_exhausted(fresh_wire: Wire) -> None:
    fresh_wire.daemon.reset_peak()
    headers = fresh_wire.headers({"Content-Type": "application/connect+json"})
    announced = b"\0" + (0xFFFF_FFFF).to_bytes(4, "big") + b"{}"
    response = fresh_wire.http.post(f"/{START}", content=announced, headers=headers)
    assert response.content[0] == END
    assert b"resource_exhausted" in response.content or b"invalid_argument" in response.content
    assert fresh_wire.daemon.growth() < ROOM


def test_headers_of_a_part_are_bounded(wire: Wire, folder: Path) -> None:
    wire.daemon.reset_peak()
    body = b"--b\r\nX-Bomb: " + b"y" * HUGE + b'\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = wire.files("POST", params={"path": f"{folder}/f"}, content=body, headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, 400)
    assert wire.daemon.growth() < ROOM // 4
    assert list(folder.iterdir()) == []


def test_a_thousand_parts_are_a_thousand_files(wire: Wire, folder: Path) -> None:
    files = [("file", (f"{folder}/{i}", b"x")) for i in range(1000)]
    assert len(wire.files("POST", files=files).json()) == 1000
    assert len(list(folder.iterdir())) == 1000


def test_deeply_nested_json_does_no_harm(wire: Wire) -> None:
    body = b'{"x":' * 200_000
    headers = wire.headers({"Content-Type": "application/json"})
    assert wire.http.post("/filesystem.Filesystem/Stat", content=body, headers=headers).status_code == 400
    assert well(wire)


def test_deadline_of_a_blocked_input_is_kept(wire: Wire) -> None:
    with wire.stream(START, shell("exec sleep 600", stdin=True)) as arriving:
        pid = next(arriving).event["start"]["pid"]
        body = {"process": {"pid": pid}, "input": {"stdin": to_base64("x" * 1_000_000)}}
        began = time.monotonic()
        response = wire.call(SEND, body, Connect_Timeout_Ms="500")
        assert time.monotonic() - began < 5
        assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
        wire.ok("process.Process/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})


def test_second_frame_of_a_server_stream_is_an_error(wire: Wire) -> None:
    headers = wire.headers({"Content-Type": "application/connect+json"})
    body = envelope(shell("echo one")) + envelope(shell("echo two"))
    response = wire.http.post(f"/{START}", content=body, headers=headers)
    assert response.status_code == 200
    assert b"dHdv" not in response.content
    assert well(wire)


def test_compressed_frames_are_refused(wire: Wire) -> None:
    headers = wire.headers({"Content-Type": "application/connect+json"})
    response = wire.http.post(f"/{START}", content=envelope(shell("echo one"), flags=1), headers=headers)
    last = Frame(response.content[0], response.content[5:])
    assert last.ends
    assert "error" in last.json


def test_announced_compression_is_refused_with_a_code(wire: Wire) -> None:
    response = wire.call("process.Process/List", {}, Content_Encoding="zstd")
    assert (response.status_code, response.json()["code"]) == (501, "unimplemented")


def test_old_user_agent_still_gets_entries(wire: Wire) -> None:
    entry = wire.ok("filesystem.Filesystem/Stat", {"path": "/"}, User_Agent="connect-python")["entry"]
    assert (entry["name"], entry["path"], entry["type"]) == ("/", "/", "FILE_TYPE_DIRECTORY")


def test_threads_do_not_grow_with_blocked_requests(guest: Daemon, wire: Wire) -> None:
    before = guest.threads()
    pids: list[int] = []
    for _ in range(50):
        with wire.stream(START, shell("exec sleep 600", stdin=True)) as arriving:
            pids.append(next(arriving).event["start"]["pid"])
    assert guest.threads() < before + 20
    for pid in pids:
        wire.ok("process.Process/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
    eventually(lambda: wire.ok("process.Process/List", {}) == {}, "all ended")


@pytest.mark.anyio
async def test_fifty_commands_at_once_through_the_async_client(async_sandbox: Callable[[], AsyncSandbox]) -> None:
    sandbox = async_sandbox()
    results = await asyncio.gather(*(sandbox.commands.run(f"echo {i}") for i in range(50)))
    assert [result.stdout for result in results] == [f"{i}\n" for i in range(50)]
