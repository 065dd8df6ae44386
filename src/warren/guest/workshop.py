"""What a template build does through guestd: commands, archives in, the tree of files out. The guest is hostile."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import urlencode

import aiohttp

from warren.contracts.guest import CopyOrder, Door, Exit, Fate, GuestCommand, OnLine, OnStart, nothing
from warren.guest.envelope import End, FrameReader, encode
from warren.guest.lines import Lines
from warren.guest.process_event import Ended, Output, Started, decode
from warren.model import limits
from warren.model.errors import Timeout, Unavailable

_CHUNK_BYTES = 256 * 1024
_KEEPALIVE_S = 20
_SILENCE_S = 3.0 * _KEEPALIVE_S
"""Seconds without a byte until the guest counts as lost: it says that it is there every 20 s."""
_WORDS_MAX = 1024
"""Characters kept of what a guest says about a refusal."""


class GuestWorkshop:
    """Implements `contracts.guest.Workshop`. Each call has a connection of its own: they are few and long."""

    async def run(
        self, door: Door, command: GuestCommand, on_line: OnLine, deadline_s: float, on_start: OnStart = nothing
    ) -> Exit:
        lines, pid = Lines(on_line), 0
        try:
            async with asyncio.timeout(deadline_s), _session(door, command.user) as session:
                async for event in _events(session, command, deadline_s):
                    match event:
                        case Started(pid=pid):
                            on_start()
                            if command.fate is Fate.LEFT:
                                return Exit(0)
                        case Output():
                            lines.feed(event.data)
                        case Ended():
                            lines.close()
                            return Exit(event.exit_code)
                        case Exit():
                            return event
        except TimeoutError:
            await _end(door, command, pid)
            raise Timeout(f"cannot wait longer than {deadline_s:g} s") from None
        except asyncio.CancelledError:
            await _end(door, command, pid)
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"cannot go on: the sandbox was lost ({type(error).__name__})") from error
        raise Unavailable("cannot go on: the sandbox was lost while a command ran")

    async def make_folder(self, door: Door, path: str, user: str) -> Exit:
        body = json.dumps({"path": path}).encode()
        headers = {"Content-Type": "application/json"}
        async with _session(door, user) as session, _patience():
            async with session.post("/filesystem.Filesystem/MakeDir", data=body, headers=headers) as answer:
                if answer.status == HTTPStatus.CONFLICT:
                    return Exit(0)
                return await _exit(answer)

    async def copy_in(self, door: Door, order: CopyOrder) -> Exit:
        place = {"src": order.source, "dest": order.target, "user": order.owner, "mode": order.mode}
        with await asyncio.to_thread(open, order.archive, "rb") as archive:
            async with _session(door) as session, _patience(limits.BUILD_STEP_DEADLINE_S):
                async with session.post(f"/warren/copy?{urlencode(place)}", data=_chunks(archive.read)) as answer:
                    return await _exit(answer)

    async def settle(self, door: Door) -> None:
        async with _session(door) as session, _patience():
            async with session.post("/warren/settle") as answer:
                if (ended := await _exit(answer)).code:
                    raise Unavailable(f"cannot use the guest: {ended.refusal}")

    async def tree(self, door: Door, since_ns: int) -> AsyncIterator[bytes]:
        async with _session(door) as session, _patience(limits.BUILD_BAKE_DEADLINE_S):
            async with session.get(f"/warren/tree?since={since_ns}") as answer:
                if answer.status != HTTPStatus.OK:
                    raise Unavailable(f"cannot use the guest: it answered {answer.status}")
                async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                    yield chunk


@asynccontextmanager
async def _session(door: Door, user: str = "") -> AsyncGenerator[aiohttp.ClientSession]:
    headers = {
        "X-Access-Token": door.access_token,
        "X-Warren-Control": door.control_token,
        "Connect-Protocol-Version": "1",
        "Accept-Encoding": "identity",
    }
    if user:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:".encode()).decode()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.GUEST_CALL_DEADLINE_S, sock_read=_SILENCE_S)
    base = f"http://{door.address}:{door.port}"
    async with aiohttp.ClientSession(base, headers=headers, timeout=timeout, read_bufsize=_CHUNK_BYTES) as session:
        yield session


@asynccontextmanager
async def _patience(deadline_s: float = limits.GUEST_CALL_DEADLINE_S) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(deadline_s):
            yield
    except TimeoutError:
        raise Timeout(f"cannot get an answer from the guest within {deadline_s:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(f"cannot use the guest: {type(error).__name__}") from error


async def _events(
    session: aiohttp.ClientSession, command: GuestCommand, deadline_s: float
) -> AsyncGenerator[Started | Output | Ended | Exit]:
    process = {"cmd": command.words[0], "args": list(command.words[1:]), "envs": dict(command.envs)}
    body = encode({"process": {**process, "cwd": command.cwd}, "stdin": False})
    headers = {"Content-Type": "application/connect+json", "Keepalive-Ping-Interval": str(_KEEPALIVE_S)}
    if command.fate is Fate.KILLED:
        headers["Connect-Timeout-Ms"] = str(int(deadline_s * 1000))
    async with session.post("/process.Process/Start", data=body, headers=headers, allow_redirects=False) as answer:
        if answer.status != HTTPStatus.OK:
            yield await _exit(answer)
            return
        reader = FrameReader()
        async for data in answer.content.iter_any():
            for frame in reader.feed(data):
                if isinstance(frame, End):
                    yield Exit(1, _words(frame.code, frame.message))
                    return
                if (event := decode(frame.body)) is not None:
                    yield event


async def _end(door: Door, command: GuestCommand, pid: int) -> None:
    """Kill what the caller no longer waits for; whether it was there any more does not matter."""
    if command.fate is not Fate.KILLED or not pid:
        return
    body = {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"}
    try:
        async with asyncio.timeout(limits.GUEST_CALL_DEADLINE_S), _session(door) as session:
            async with session.post("/process.Process/SendSignal", json=body):
                pass
    except (TimeoutError, aiohttp.ClientError, OSError):
        return


async def _exit(answer: aiohttp.ClientResponse) -> Exit:
    """What an answer without a stream says: nothing, or why not."""
    content = await answer.content.read(limits.GUEST_ANSWER_MAX_BYTES)
    if answer.status < HTTPStatus.BAD_REQUEST:
        return Exit(0)
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    fields = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    return Exit(1, _words(fields.get("code"), fields.get("message", f"status {answer.status}")))


def _words(code: object, message: object) -> str:
    said = str(message)[:_WORDS_MAX]
    return f"{code}: {said}" if isinstance(code, str) else said


async def _chunks(read: Any) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(read, _CHUNK_BYTES):
        yield chunk
