import base64
import json
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import httpx
import pytest

from warren.cli.process_stream import Command, Target, started
from warren.guest.process_event import Ended, Output, ProcessEvent
from warren.model.errors import BadRequest, SandboxNotFound, Timeout, Unavailable, WarrenError

pytestmark = pytest.mark.anyio

TARGET = Target("http://gateway", "i1", "token", None)
LS = Command(["ls", "-l"])
START = {"event": {"start": {"pid": 7}}}
END = {"event": {"end": {"exited": True, "exitCode": 3}}}
Respond = Callable[[httpx.Request], httpx.Response]


def frames(*bodies: dict[str, Any], end: dict[str, Any] | None = None) -> bytes:
    packed = [(0, body) for body in bodies] + ([] if end is None else [(2, end)])
    texts = [(flags, json.dumps(body).encode()) for flags, body in packed]
    return b"".join(struct.pack(">BI", flags, len(text)) + text for flags, text in texts)


def output(text: bytes) -> dict[str, Any]:
    return {"event": {"data": {"stdout": base64.b64encode(text).decode()}}}


class Stream(httpx.AsyncByteStream):
    def __init__(self, chunks: Iterable[bytes | Exception]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


class Guest:
    """Answers Start with the given chunks, every other call with an empty message."""

    def __init__(self, *chunks: bytes | Exception, status: int = 200) -> None:
        self.requests: list[httpx.Request] = []
        self._chunks, self._status = chunks, status

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path != "/process.Process/Start":
            return httpx.Response(200, json={})
        return httpx.Response(self._status, stream=Stream(self._chunks))

    async def events(self, command: Command = LS, target: Target = TARGET) -> list[ProcessEvent]:
        async with started(target, command, httpx.MockTransport(self)) as process:
            return [event async for event in process.events]


async def test_events_come_in_order_up_to_the_end() -> None:
    body = frames(START, output(b"a"), {"event": {"keepalive": {}}}, output(b"b"), END, end={})
    guest = Guest(body[:9], body[9:40], body[40:])
    assert await guest.events() == [Output(b"a"), Output(b"b"), Ended(3)]


async def test_start_says_who_where_and_what() -> None:
    guest = Guest(frames(START, END))
    command = Command(["sh", "-c", "x"], cwd="/tmp", envs={"A": "b"}, stdin=True, timeout_s=1.5)
    await guest.events(command, Target("http://gateway", "i1", "token", "root"))
    request = guest.requests[0]
    assert request.headers["E2b-Sandbox-Id"] == "i1"
    assert request.headers["E2b-Sandbox-Port"] == "49983"
    assert request.headers["X-Access-Token"] == "token"
    assert request.headers["Authorization"] == "Basic " + base64.b64encode(b"root:").decode()
    assert request.headers["Connect-Timeout-Ms"] == "1500"
    assert json.loads(request.content[5:]) == {
        "process": {"cmd": "sh", "args": ["-c", "x"], "envs": {"A": "b"}, "cwd": "/tmp"},
        "stdin": True,
    }


async def test_a_terminal_has_a_size_and_an_open_sandbox_no_token() -> None:
    guest = Guest(frames(START, END))
    await guest.events(Command(["bash"], terminal=(101, 33)), Target("http://gateway", "i1"))
    assert json.loads(guest.requests[0].content[5:])["pty"] == {"size": {"cols": 101, "rows": 33}}
    assert not {"x-access-token", "authorization", "connect-timeout-ms"} & set(guest.requests[0].headers)


async def test_calls_name_the_process() -> None:
    guest = Guest(frames(START, END))
    async with started(TARGET, LS, httpx.MockTransport(guest)) as process:
        assert await process.send_stdin(b"in")
        await process.close_stdin()
        await process.resize(80, 25)
        await process.signal("SIGKILL")
    sent = [(request.url.path.rsplit("/", 1)[1], json.loads(request.content)) for request in guest.requests[1:]]
    pid = {"process": {"pid": 7}}
    assert sent == [
        ("SendInput", pid | {"input": {"stdin": "aW4="}}),
        ("CloseStdin", pid),
        ("Update", pid | {"pty": {"size": {"cols": 80, "rows": 25}}}),
        ("SendSignal", pid | {"signal": "SIGNAL_SIGKILL"}),
    ]


@pytest.mark.parametrize(
    ("guest", "error", "text"),
    [
        (
            Guest(b'{"sandboxId":"i1","message":"The sandbox was not found","code":502}', status=502),
            SandboxNotFound,
            "i1",
        ),
        (Guest(b'{"code":401,"message":"bad token"}', status=401), WarrenError, "bad token"),
        (Guest(b"<html>proxy</html>", status=500), Unavailable, "is this a Warren server"),
        (Guest(frames(START)), Unavailable, "was cut"),
        (Guest(frames(START), httpx.ReadError("reset")), Unavailable, "was cut"),
        (Guest(frames(START), httpx.ReadTimeout("silence")), Unavailable, "was cut"),
        (Guest(frames(output(b"a"))), Unavailable, "did not begin with a start"),
        (Guest(b""), Unavailable, "was cut"),
        (Guest(frames(START, end={})), Unavailable, "not the process"),
        (Guest(frames(end={"error": {"code": "invalid_argument", "message": "cwd '/x'\x1b"}})), BadRequest, r"\\x1b"),
        (Guest(b"garbage\xff\xff"), Unavailable, "cannot understand"),
    ],
)
async def test_failures_are_told_in_one_line(guest: Guest, error: type[WarrenError], text: str) -> None:
    with pytest.raises(error, match=text) as raised:
        await guest.events()
    assert raised.value.message.startswith("cannot")
    assert "\n" not in raised.value.message


async def test_the_command_s_own_deadline_is_named() -> None:
    guest = Guest(frames(START, end={"error": {"code": "deadline_exceeded", "message": "deadline"}}))
    with pytest.raises(Timeout, match=r"0\.5 s"):
        await guest.events(Command(["sleep", "9"], timeout_s=0.5))


async def test_no_gateway_is_told() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(Unavailable, match="cannot reach the gateway at http://gateway"):
        async with started(TARGET, LS, httpx.MockTransport(refuse)):
            raise AssertionError
