"""The Connect protocol by hand, for what no client library sends or shows."""

from __future__ import annotations

import base64
import http.client
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .daemon import Daemon

DATA, COMPRESSED, END = 0, 1, 2
HEADER_BYTES = 5
TIMEOUT = 20.0  # seconds that one read may take


@dataclass(frozen=True)
class Frame:
    """One envelope of a stream."""

    flags: int
    payload: bytes

    @property
    def ends(self) -> bool:
        return bool(self.flags & END)

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.payload)

    @property
    def event(self) -> dict[str, Any]:
        """The process event inside, as JSON."""
        return self.json["event"]


def envelope(payload: bytes | dict[str, Any], flags: int = DATA) -> bytes:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return bytes([flags]) + len(body).to_bytes(4, "big") + body


def frames(chunks: Iterator[bytes]) -> Iterator[Frame]:
    """Cut a byte stream into envelopes; bytes left over at its end are an error."""
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= HEADER_BYTES:
            length = int.from_bytes(buffer[1:HEADER_BYTES], "big")
            if len(buffer) < HEADER_BYTES + length:
                break
            yield Frame(buffer[0], bytes(buffer[HEADER_BYTES : HEADER_BYTES + length]))
            del buffer[: HEADER_BYTES + length]
    assert not buffer, f"the stream ended inside an envelope: {bytes(buffer[:80])!r}"


def basic(user: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:".encode()).decode()


def unbase64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def to_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def command(cmd: str, *args: str, **more: Any) -> dict[str, Any]:
    """The request of Process/Start."""
    config = {key: more.pop(key) for key in ("cwd", "envs") if key in more}
    return {"process": {"cmd": cmd, "args": list(args), **config}, **more}


def shell(line: str, **more: Any) -> dict[str, Any]:
    return command("/bin/sh", "-c", line, **{"stdin": False, **more})


@dataclass
class Wire:
    """Calls one guestd with plain HTTP."""

    daemon: Daemon

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.daemon.url, timeout=TIMEOUT)

    def headers(self, extra: dict[str, str], user: str | None = None) -> dict[str, str]:
        found = {"Connect-Protocol-Version": "1"}
        if self.daemon.token is not None:
            found["X-Access-Token"] = self.daemon.token
        if user is not None:
            found["Authorization"] = basic(user)
        return {**found, **extra}

    def call(self, method: str, body: dict[str, Any], *, user: str | None = None, **extra: str) -> httpx.Response:
        """A unary call with the JSON codec; extra are headers with _ for -."""
        sent = {name.replace("_", "-"): value for name, value in extra.items()}
        return self.http.post(f"/{method}", json=body, headers=self.headers(sent, user))

    def ok(self, method: str, body: dict[str, Any], *, user: str | None = None, **extra: str) -> dict[str, Any]:
        response = self.call(method, body, user=user, **extra)
        assert response.status_code == 200, response.text
        return response.json()

    def refused(self, method: str, body: dict[str, Any], *, user: str | None = None) -> tuple[int, str, str]:
        """Status, Connect code and message of a unary call that must fail."""
        response = self.call(method, body, user=user)
        assert response.status_code != 200, response.text
        content = response.json()
        return response.status_code, content["code"], content["message"]

    @contextmanager
    def stream(
        self, method: str, body: dict[str, Any] | bytes, *, user: str | None = None, codec: str = "json", **extra: str
    ) -> Iterator[Iterator[Frame]]:
        """A server stream; the frames come as they arrive, leaving the block closes the connection."""
        sent = {name.replace("_", "-"): value for name, value in extra.items()}
        sent["Content-Type"] = f"application/connect+{codec}"
        with self.http.stream(
            "POST", f"/{method}", content=envelope(body), headers=self.headers(sent, user)
        ) as response:
            if response.status_code != 200:
                response.read()
                raise AssertionError(f"{response.status_code} {response.text}")
            assert response.headers["Content-Type"] == f"application/connect+{codec}"
            assert "Content-Encoding" not in response.headers
            yield frames(response.iter_raw())

    def collect(self, method: str, body: dict[str, Any], *, user: str | None = None, **extra: str) -> Run:
        with self.stream(method, body, user=user, **extra) as arriving:
            return Run.of(list(arriving))

    def run(self, body: dict[str, Any], *, user: str | None = None, **extra: str) -> Run:
        return self.collect("process.Process/Start", body, user=user, **extra)

    def files(self, verb: str, *, params: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
        headers = self.headers(more.pop("headers", {}))
        return self.http.request(verb, "/files", params=params, headers=headers, **more)


@dataclass(frozen=True)
class Run:
    """All that one stream of a process said."""

    pid: int | None
    stdout: bytes
    stderr: bytes
    pty: bytes
    end: dict[str, Any] | None
    error: dict[str, Any] | None
    events: list[dict[str, Any]]

    @classmethod
    def of(cls, arrived: list[Frame]) -> Run:
        assert arrived, "the stream had no frame at all"
        assert arrived[-1].flags == END, f"the stream has no end frame: {arrived[-1]}"
        events = [frame.event for frame in arrived[:-1]]
        output = {kind: joined(events, kind) for kind in ("stdout", "stderr", "pty")}
        pid = events[0]["start"]["pid"] if events and "start" in events[0] else None
        end = next((event["end"] for event in events if "end" in event), None)
        return cls(pid=pid, end=end, error=arrived[-1].json.get("error"), events=events, **output)


def joined(events: list[dict[str, Any]], kind: str) -> bytes:
    return b"".join(unbase64(event["data"][kind]) for event in events if kind in event.get("data", {}))


class Upstream:
    """A client stream whose frames a test sends one by one, with the answer still to come."""

    def __init__(self, daemon: Daemon, method: str, **extra: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=TIMEOUT)
        self.connection.putrequest("POST", f"/{method}")
        self.connection.putheader("Content-Type", "application/connect+json")
        self.connection.putheader("Transfer-Encoding", "chunked")
        for name, value in {**Wire(daemon).headers({}), **extra}.items():
            self.connection.putheader(name.replace("_", "-"), value)
        self.connection.endheaders()

    def send(self, frame: dict[str, Any] | bytes) -> None:
        body = envelope(frame)
        self.connection.send(f"{len(body):x}\r\n".encode() + body + b"\r\n")

    def finish(self) -> list[Frame]:
        self.connection.send(b"0\r\n\r\n")
        return self.answer()

    def answer(self) -> list[Frame]:
        response = self.connection.getresponse()
        assert response.status == 200, response.read()
        content = response.read()
        self.connection.close()
        return list(frames(iter([content])))

    def close(self) -> None:
        self.connection.close()
