"""The guest's tunnel: reaches a service that listens only on the loopback inside its sandbox.

We ask the guest for `GET /warren/tunnel?port=N`; after its 101 the connection is the connection to that port.
The guest is not trusted: its answer has a limit and a deadline, and nothing of it is passed on.
"""

import asyncio
import re

from warren.contracts.engine import GUEST_PORT
from warren.gateway.links import Link, Upstream
from warren.model import limits

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


class TunnelRefused(ConnectionRefusedError):
    """cannot reach the port from inside either"""


class Handshake(asyncio.Protocol):
    """Waits for the end of the answer's head; bytes behind it already belong to the service."""

    def __init__(self, done: asyncio.Future[tuple[bytes, bytes]]) -> None:
        self._done = done
        self._received = b""

    def data_received(self, data: bytes) -> None:
        if self._done.done():
            return
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if end:
            self._done.set_result((head, rest))
        elif len(self._received) > limits.GATEWAY_TUNNEL_HEAD_BYTES:
            self._done.set_exception(TunnelRefused("cannot use the tunnel: the guest's answer has no end"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(TunnelRefused("cannot use the tunnel: the guest closed it"))


async def open_tunnel(link: Link, port: int) -> Upstream:
    """Raises OSError when there is no guest, and TunnelRefused when nothing listens on the port inside either."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[bytes, bytes]] = loop.create_future()
    transport, _ = await loop.create_connection(lambda: Handshake(done), link.address, GUEST_PORT)
    try:
        if link.is_gone:
            raise TunnelRefused("cannot use the tunnel: the sandbox is gone")
        transport.write(_request(link, port))
        head, rest = await done
        if not (match := _STATUS.match(head)) or match[1] != b"101":
            raise TunnelRefused("cannot use the tunnel: the guest refused it")
        upstream = Upstream(link, loop)
        transport.set_protocol(upstream)
        upstream.connection_made(transport)
    except BaseException:
        transport.abort()
        raise
    if rest:
        upstream.data_received(rest)
    return upstream


def _request(link: Link, port: int) -> bytes:
    return (
        f"GET /warren/tunnel?port={port} HTTP/1.1\r\nHost: guest\r\nConnection: Upgrade\r\n"
        f"Upgrade: warren-tunnel\r\nX-Warren-Control: {link.control_token}\r\n\r\n"
    ).encode()
