"""One process in a sandbox, through the gateway: its events, and the calls that reach it."""

import base64
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import httpx

from warren.cli.address import is_loopback
from warren.cli.rest import CONNECT_DEADLINE_S, refusal
from warren.guest.envelope import End, FrameReader, encode
from warren.guest.process_event import Ended, ProcessEvent, Started, decode
from warren.model.errors import BadRequest, NotFound, SandboxNotFound, Timeout, Unavailable, WarrenError
from warren.telemetry.redaction import printable

GUEST_PORT = "49983"
KEEPALIVE_S = 20
"""Seconds after which the guest says that it is still there."""
SILENCE_MAX_S = 3.0 * KEEPALIVE_S
"""Seconds without a byte until the stream counts as lost."""
CALL_DEADLINE_S = 30.0
ERROR_BODY_MAX = 64 * 1024
"""Bytes of an error answer; it may come from inside the sandbox."""

_SERVICE = "/process.Process/"
_MEANINGS: Mapping[str, type[WarrenError]] = {
    "invalid_argument": BadRequest,
    "not_found": NotFound,
    "deadline_exceeded": Timeout,
    "unauthenticated": BadRequest,
}


@dataclass(frozen=True, slots=True)
class Command:
    """What to start. `terminal` is (columns, rows); without one, `stdin` says whether there will be input."""

    words: Sequence[str]
    cwd: str | None = None
    envs: Mapping[str, str] = field(default_factory=dict[str, str])
    stdin: bool = False
    terminal: tuple[int, int] | None = None
    timeout_s: float | None = None

    def message(self) -> dict[str, Any]:
        process: dict[str, Any] = {"cmd": self.words[0], "args": list(self.words[1:]), "envs": dict(self.envs)}
        if self.cwd is not None:
            process["cwd"] = self.cwd
        if self.terminal is None:
            return {"process": process, "stdin": self.stdin}
        columns, rows = self.terminal
        return {"process": process, "pty": {"size": {"cols": columns, "rows": rows}}}


@dataclass(frozen=True, slots=True)
class Target:
    """Where, and as whom: without a user, the template's."""

    sandbox_url: str
    sandbox_id: str
    access_token: str | None = None
    user: str | None = None


class Process:
    """A started process. Calls about one that has ended do nothing."""

    def __init__(self, client: httpx.AsyncClient, pid: int, events: AsyncGenerator[ProcessEvent]) -> None:
        self._client = client
        self._selector = {"process": {"pid": pid}}
        self.events = events

    async def send_stdin(self, data: bytes) -> bool:
        """Returns when the process has taken the bytes: no deadline of its own. False when it wants no more."""
        return await self._call("SendInput", {"input": {"stdin": _text(data)}}, deadline_s=None)

    async def send_keys(self, data: bytes) -> bool:
        return await self._call("SendInput", {"input": {"pty": _text(data)}}, deadline_s=None)

    async def close_stdin(self) -> None:
        await self._call("CloseStdin", {})

    async def resize(self, columns: int, rows: int) -> None:
        await self._call("Update", {"pty": {"size": {"cols": columns, "rows": rows}}})

    async def signal(self, name: str) -> None:
        """SIGTERM or SIGKILL."""
        await self._call("SendSignal", {"signal": f"SIGNAL_{name}"})

    async def _call(self, method: str, body: dict[str, Any], deadline_s: float | None = CALL_DEADLINE_S) -> bool:
        timeout = httpx.Timeout(deadline_s, connect=CONNECT_DEADLINE_S)
        try:
            answer = await self._client.post(_SERVICE + method, json=self._selector | body, timeout=timeout)
        except httpx.HTTPError:
            return False  # the stream of events says what became of the process
        return answer.is_success


@asynccontextmanager
async def started(
    target: Target, command: Command, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncGenerator[Process]:
    """Start a command; leaving the block does not end it. Raises what the guest or the gateway answers."""
    headers = {"E2b-Sandbox-Id": target.sandbox_id, "E2b-Sandbox-Port": GUEST_PORT, "Connect-Protocol-Version": "1"}
    headers["Accept-Encoding"] = "identity"  # frames come as they are written
    if target.access_token:
        headers["X-Access-Token"] = target.access_token
    if target.user is not None:
        headers["Authorization"] = "Basic " + _text(f"{target.user}:".encode())
    timeout = httpx.Timeout(SILENCE_MAX_S, connect=CONNECT_DEADLINE_S)
    trust = not is_loopback(target.sandbox_url)
    async with httpx.AsyncClient(
        base_url=target.sandbox_url, headers=headers, timeout=timeout, trust_env=trust, transport=transport
    ) as client:
        events = _events(client, target.sandbox_id, command)
        try:
            first = await anext(events, None)
            if not isinstance(first, Started):
                raise Unavailable("cannot understand the sandbox: its guest did not begin with a start")
            yield Process(client, first.pid, events)
        finally:
            await events.aclose()


async def _events(client: httpx.AsyncClient, sandbox_id: str, command: Command) -> AsyncGenerator[ProcessEvent]:
    """Up to and with the end of the process."""
    headers = {"Content-Type": "application/connect+json", "Keepalive-Ping-Interval": str(KEEPALIVE_S)}
    if command.timeout_s is not None:
        headers["Connect-Timeout-Ms"] = str(max(1, int(command.timeout_s * 1000)))
    body = encode(command.message())
    try:
        async with client.stream("POST", _SERVICE + "Start", content=body, headers=headers) as answer:
            if not answer.is_success:
                raise _refused(answer.status_code, await _bounded(answer), sandbox_id)
            reader = FrameReader()
            async for data in answer.aiter_raw():
                for frame in reader.feed(data):
                    if isinstance(frame, End):
                        _raise_end(frame, command)
                    if (event := decode(frame.body)) is not None:
                        yield event
                        if isinstance(event, Ended):
                            return
    except httpx.ConnectError:
        raise Unavailable(f"cannot reach the gateway at {client.base_url}: is the server running?") from None
    except httpx.HTTPError:
        raise _cut(sandbox_id) from None
    raise _cut(sandbox_id)


def _raise_end(end: End, command: Command) -> NoReturn:
    if end.code == "deadline_exceeded" and command.timeout_s is not None:
        raise Timeout(f"cannot go on: the command's {command.timeout_s:g} s are over, so it was killed")
    if end.code is None:
        raise Unavailable("cannot understand the sandbox: its guest ended the stream but not the process")
    raise _MEANINGS.get(end.code, Unavailable)(_cannot(end.message or end.code))


def _refused(status: int, body: bytes, sandbox_id: str) -> WarrenError:
    if status == 502 and b"was not found" in body:
        return SandboxNotFound(f"cannot find sandbox {sandbox_id}: it has ended or never was")
    error = refusal(status, body)
    return type(error)(_cannot(error.message))


def _cannot(message: str) -> str:
    said = printable(message)
    return said if said.startswith("cannot") else f"cannot run it: {said}"


def _cut(sandbox_id: str) -> Unavailable:
    return Unavailable(
        f"cannot go on: the connection to sandbox {sandbox_id} was cut; has it been killed or timed out?"
    )


async def _bounded(answer: httpx.Response) -> bytes:
    body = b""
    async for data in answer.aiter_raw():
        body += data
        if len(body) > ERROR_BODY_MAX:
            break
    return body[:ERROR_BODY_MAX]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
