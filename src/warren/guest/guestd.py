"""Control calls to guestd over HTTP. The guest is hostile: answers are bounded, deadlines are ours."""

import asyncio
import contextlib
import json
import socket
import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, cast

import aiohttp

from warren.contracts.engine import GUEST_PORT
from warren.contracts.guest import GuestIdentity, GuestLogs
from warren.model import limits
from warren.model.errors import Timeout, Unavailable
from warren.model.observation import Level, LogEntry
from warren.telemetry import request_id, steps

_CONNECT_ATTEMPT_S = 0.05
"""While a sandbox boots, packets to it vanish; a short attempt, repeated, finds it sooner than TCP's own 1 s retry."""
_RETRY_PAUSE_S = 0.004
_FIELDS_MAX, _NAME_MAX = 16, 64
"""Fields kept of one log entry, and characters of a field's or a logger's name."""


class GuestdClient:
    """Implements `contracts.guest.Guest`."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def init(self, address: str, identity: GuestIdentity, deadline_s: float) -> None:
        body = json.dumps(_init_body(identity)).encode()
        authority = identity.authority or identity.control_token
        headers = {"Content-Type": "application/json", "X-Warren-Control": authority}
        headers |= {request_id.HEADER: name} if (name := request_id.current()) else {}
        since = time.perf_counter()
        try:
            async with asyncio.timeout(deadline_s):
                while True:
                    last = time.perf_counter()
                    try:
                        await self._call("POST", f"{_base(address)}/init", headers, body)
                        steps.took("guest", since, last)
                        steps.took("init", last, time.perf_counter())
                        return
                    except (aiohttp.ClientConnectionError, TimeoutError, OSError):
                        await _listens(address)
        except TimeoutError:
            raise Timeout(f"cannot reach the guest at {address} within {deadline_s:g} s") from None
        except aiohttp.ClientError as error:
            raise Unavailable(f"cannot understand the guest at {address}: {type(error).__name__}") from error

    async def retain_envs(self, address: str, control_token: str) -> None:
        # A guest from before an upgrade does not know the route: it answers, and keeps nothing.
        await self._control("POST", f"{_base(address)}/warren/envs", control_token, may_lack=True)

    async def logs(self, address: str, control_token: str, after: int) -> GuestLogs:
        url = f"{_base(address)}/warren/logs?after={after}&limit={limits.GUEST_LOG_BATCH}"
        return parse_logs(await self._control("GET", url, control_token), after)

    async def check(self, address: str) -> None:
        try:
            async with asyncio.timeout(limits.GUEST_CALL_DEADLINE_S):
                answer = await self._call("GET", f"{_base(address)}/health", {}, None, limits.GUEST_CALL_DEADLINE_S)
        except TimeoutError:
            raise Timeout(f"cannot get an answer from the guest at {address}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"cannot understand the guest: {error}") from error
        if answer:
            raise Unavailable("cannot understand the guest: it says more than it should")

    async def free(self, address: str, control_token: str, need: int, attempt: int) -> bool:
        url = f"{_base(address)}/warren/free?bytes={need}&round={attempt}"
        return ended_some(await self._control("POST", url, control_token))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _control(self, method: str, url: str, control_token: str, *, may_lack: bool = False) -> bytes:
        try:
            async with asyncio.timeout(limits.GUEST_CALL_DEADLINE_S):
                # Not the short attempts of a boot: the guest is there, though it may have little of a processor left.
                headers, patience = {"X-Warren-Control": control_token}, limits.GUEST_CALL_DEADLINE_S
                return await self._call(method, url, headers, None, patience, may_lack=may_lack)
        except TimeoutError:
            raise Timeout(f"cannot get an answer from the guest at {url}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"cannot use the guest: {error}") from error

    async def _call(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        connect_s: float = _CONNECT_ATTEMPT_S,
        *,
        may_lack: bool = False,
    ) -> bytes:
        if self._session is None:
            # No connection outlives its call: the address may belong to another sandbox a moment later.
            connector = aiohttp.TCPConnector(force_close=True, limit=0)
            self._session = aiohttp.ClientSession(connector=connector)
        deadlines = aiohttp.ClientTimeout(total=None, sock_connect=connect_s)
        async with self._session.request(
            method, url, headers=headers, data=body, allow_redirects=False, timeout=deadlines
        ) as answer:
            content = await answer.content.read(limits.GUEST_ANSWER_MAX_BYTES)
            while content and not answer.content.at_eof() and len(content) < limits.GUEST_ANSWER_MAX_BYTES:
                content += await answer.content.read(limits.GUEST_ANSWER_MAX_BYTES - len(content))
            if answer.status >= 400:
                if may_lack and answer.status == HTTPStatus.NOT_FOUND:
                    return b""
                raise Unavailable(f"cannot use the guest: it answered {answer.status} to {method} {answer.url.path}")
            return content


def ended_some(answer: bytes) -> bool:
    """Whether a guest says that it ended processes. What does not fit the form says no."""
    try:
        document: Any = json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and bool(cast("dict[str, Any]", document).get("ended"))


def parse_logs(answer: bytes, after: int) -> GuestLogs:
    """Log entries from a guest's answer. Whatever does not fit the form is left out; nothing raises."""
    try:
        document: Any = json.loads(answer)
    except (ValueError, RecursionError):
        return GuestLogs((), after)
    listed: Any = cast("dict[str, Any]", document).get("entries") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        return GuestLogs((), after)
    entries: list[LogEntry] = []
    last = after
    for raw in cast("list[Any]", listed)[: limits.GUEST_LOG_BATCH]:
        parsed = _entry(raw)
        if parsed is not None and parsed[0] > last:
            if not entries and after and parsed[0] > after + 1:
                entries.append(_lost(parsed[0] - after - 1, parsed[1].at))
            last = parsed[0]
            entries.append(parsed[1])
    return GuestLogs(tuple(entries), last)


def _lost(count: int, at: datetime) -> LogEntry:
    message = f"{count} entries of this log were lost: the sandbox wrote faster than they are fetched and kept"
    return LogEntry(at=at, level=Level.WARN, logger="warren", message=message)


def _entry(raw: Any) -> tuple[int, LogEntry] | None:
    if not isinstance(raw, dict):
        return None
    fields = cast("dict[str, Any]", raw)
    seq, stamp, message = fields.get("seq"), fields.get("timestamp"), fields.get("message")
    if not (isinstance(seq, int) and 0 < seq < 2**53 and isinstance(stamp, str) and isinstance(message, str)):
        return None
    try:
        at = datetime.fromisoformat(stamp).astimezone(UTC)
        level = Level(fields.get("level", Level.INFO))
    except (ValueError, OverflowError, TypeError):
        return None
    extra: Any = fields.get("fields")
    pairs = cast("dict[Any, Any]", extra) if isinstance(extra, dict) else {}
    kept = {_text(k, _NAME_MAX): _text(v, limits.LOG_MESSAGE_MAX) for k, v in list(pairs.items())[:_FIELDS_MAX]}
    logger = _text(fields.get("logger", "guest"), _NAME_MAX)
    return seq, LogEntry(at=at, level=level, logger=logger, message=_text(message, limits.LOG_MESSAGE_MAX), fields=kept)


def _text(value: Any, most: int) -> str:
    """What every database can hold and every answer can say: no NUL, no half of a surrogate pair, nothing nested."""
    if not isinstance(value, str | int | float):
        return ""
    return str(value)[:most].encode("utf-8", "replace").decode().replace("\0", "")


def _init_body(identity: GuestIdentity) -> dict[str, Any]:
    """Without the time: a guest leaves out what is older than what it was told, and a clock may be set back.

    Who tells a guest something waits for the answer before the next, so the order is right without it.
    """
    return {
        "envVars": None if identity.envs is None else dict(identity.envs),
        "accessToken": identity.access_token or "",
        "defaultUser": identity.default_user,
        "defaultWorkdir": identity.default_workdir,
        "controlToken": identity.control_token,
        "sandboxID": identity.sandbox_id,
        "templateID": identity.template_id,
        "hostname": identity.hostname,
        "machineID": identity.machine_id,
        "dnsServers": list(identity.dns_servers),
        "isCopy": identity.is_copy,
        "recallsEnvs": identity.recalls_envs,
    }


async def _listens(address: str) -> None:
    """Return when the guest takes connections. Asking costs a tenth of a request, and a burst of starts asks often."""
    while True:
        await asyncio.sleep(_RETRY_PAUSE_S)
        with contextlib.suppress(TimeoutError, OSError), socket.socket() as probe:
            probe.setblocking(False)
            async with asyncio.timeout(_CONNECT_ATTEMPT_S):
                await asyncio.get_running_loop().sock_connect(probe, (address, GUEST_PORT))
            return


def _base(address: str) -> str:
    return f"http://{address}:{GUEST_PORT}"
