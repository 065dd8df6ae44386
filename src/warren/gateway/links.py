"""What is open to each sandbox, so that all of it can be cut at once."""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import cast

from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.client_proto import ResponseHandler

from warren.contracts.routing import Route
from warren.model import limits

API_KEY = "api"
UNKNOWN_KIND = "none"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Upstream(ResponseHandler):
    """One connection into a sandbox (or to the API); its link knows of it from the first moment to the last."""

    def __init__(self, link: "Link", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.link = link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=limits.GATEWAY_WRITE_BUFFER_BYTES)
        self.link.upstreams.add(self)
        if self.link.is_gone:
            self.reset()

    def data_received(self, data: bytes) -> None:
        """aiohttp tells a parse error to whoever waits for a head, but not to the body that it is in."""
        body = self._payload
        super().data_received(data)
        if body is not None and self.exception() is not None and not body.is_eof():
            body.set_exception(ClientPayloadError("cannot read the rest of the answer"))

    def connection_lost(self, exc: BaseException | None) -> None:
        self.link.upstreams.discard(self)
        super().connection_lost(exc)

    def reset(self) -> None:
        """Close without sending what is queued: after a sandbox's end its address may be another's."""
        transport = self.transport
        if transport is None:
            return
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None and not transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        abort(transport)


def abort(transport: asyncio.Transport) -> None:
    """asyncio's own transports (uvloop's do not) raise when they were closed and have just been flushed."""
    with contextlib.suppress(AttributeError):
        transport.abort()


class Relay:
    """One request or WebSocket on its way: the client's connection and, once there is one, the sandbox's.

    `sent` and `received`: bytes of bodies and frames to and from the sandbox that nobody has added up yet.
    `kind`: what it is counted as; known once it is clear where it goes.
    """

    __slots__ = ("_clock", "client", "is_answered", "is_cut", "kind", "received", "sent", "touched", "upstream")

    def __init__(self, client: asyncio.Transport, clock: Callable[[], float]) -> None:
        self.client = client
        self.upstream: Upstream | None = None
        self._clock = clock
        self.touched = clock()
        self.is_answered = False
        self.is_cut = False
        self.sent = self.received = 0
        self.kind = UNKNOWN_KIND

    def touch(self) -> None:
        self.touched = self._clock()

    def sends(self, count: int) -> None:
        self.touched = self._clock()
        self.sent += count

    def receives(self, count: int) -> None:
        self.touched = self._clock()
        self.received += count

    def cut(self) -> None:
        """Abort both sides; the client sees a broken connection, never a clean end."""
        self.is_cut = True
        abort(self.client)
        if self.upstream is not None:
            self.upstream.reset()

    def lose_sandbox(self) -> None:
        """The sandbox is gone: break off an answer that has begun; what has not gets the page that says so."""
        if self.is_answered:
            self.cut()
        elif self.upstream is not None:
            self.upstream.reset()


class Link:
    """Everything open to one sandbox in one life of it. `control_token` is None for the API."""

    def __init__(self, key: str, address: str, control_token: str | None, pool_idle_s: float) -> None:
        self.key = key
        self.address = address
        self.control_token = control_token
        self._gone = asyncio.Event()
        self.relays: set[Relay] = set()
        self.upstreams: set[Upstream] = set()
        self._pool_idle_s = pool_idle_s
        self._idle: deque[tuple[Upstream, float]] = deque()

    @property
    def is_gone(self) -> bool:
        return self._gone.is_set()

    async def gone_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        return self.is_gone

    def enter(self, relay: Relay) -> bool:
        if len(self.relays) >= limits.GATEWAY_CONNECTIONS_PER_SANDBOX:
            return False
        self.relays.add(relay)
        return True

    def leave(self, relay: Relay) -> None:
        self.relays.discard(relay)

    def take_idle(self, now: float) -> Upstream | None:
        """The connection used last; one that has said something unasked, or is closing, is not used again."""
        while self._idle:
            upstream, since = self._idle.pop()
            if now - since <= self._pool_idle_s and upstream.is_connected() and not upstream.should_close:
                return upstream
            upstream.reset()
        return None

    def give_back(self, upstream: Upstream, now: float) -> None:
        if self.is_gone or upstream.should_close or len(self._idle) >= limits.GATEWAY_POOL_PER_SANDBOX:
            upstream.close()
        else:
            self._idle.append((upstream, now))

    def sweep(self, now: float) -> None:
        while self._idle and now - self._idle[0][1] > self._pool_idle_s:
            self._idle.popleft()[0].close()
        for relay in [relay for relay in self.relays if now - relay.touched > limits.GATEWAY_IDLE_S]:
            relay.cut()

    def cut(self) -> None:
        self._gone.set()
        self._idle.clear()
        for relay in list(self.relays):
            relay.lose_sandbox()
        for upstream in list(self.upstreams):
            upstream.reset()


class Links:
    """One link per live sandbox that was asked for, and one to the API."""

    def __init__(self, api_port: int) -> None:
        self.api_port = api_port
        self._links = {API_KEY: Link(API_KEY, "127.0.0.1", None, limits.GATEWAY_API_POOL_IDLE_S)}

    def api(self) -> Link:
        return self._links[API_KEY]

    def to(self, route: Route) -> Link:
        """A route with another address or token is another life of that sandbox: the old one's link is cut."""
        link = self._links.get(route.sandbox_id)
        if link is not None and (link.address, link.control_token) == (route.address, route.control_token):
            return link
        if link is not None:
            link.cut()
        link = Link(route.sandbox_id, route.address, route.control_token, limits.GATEWAY_POOL_IDLE_S)
        self._links[route.sandbox_id] = link
        return link

    def relays(self) -> Iterator[Relay]:
        for link in self._links.values():
            yield from link.relays

    def count_relays(self) -> int:
        return sum(len(link.relays) for link in self._links.values())

    def cut(self, sandbox_id: str) -> None:
        link = self._links.pop(sandbox_id, None) if sandbox_id != API_KEY else None
        if link is not None:
            link.cut()

    def cut_all(self) -> None:
        for link in self._links.values():
            link.cut()

    def sweep(self, now: float, is_live: Callable[[str], bool]) -> None:
        """A request that raced with its sandbox's end may have made a link that nobody would cut any more."""
        for key, link in list(self._links.items()):
            if key == API_KEY or is_live(key):
                link.sweep(now)
            else:
                self.cut(key)
