"""Opens a connection to a port of a sandbox: directly, else through the guest's tunnel."""

import asyncio

from warren.contracts.engine import GUEST_PORT
from warren.gateway.links import Link, Upstream
from warren.gateway.tunnel import open_tunnel
from warren.model import limits


class PortClosed(ConnectionRefusedError):
    """cannot connect: nothing listens on that port"""


async def connect(link: Link, port: int) -> Upstream:
    """Raises PortClosed. A connection to the guest or the API may be one that was used before."""
    if keeps_alive(link, port):
        upstream = link.take_idle(asyncio.get_running_loop().time())
        if upstream is not None:
            return upstream
    try:
        async with asyncio.timeout(limits.GATEWAY_CONNECT_DEADLINE_S):
            return await _dial(link, port)
    except TimeoutError:
        raise PortClosed(f"cannot connect to port {port} in time") from None


def keeps_alive(link: Link, port: int) -> bool:
    """User ports get a connection for each request: small servers take one at a time, and forget idle ones."""
    return link.control_token is None or port == GUEST_PORT


async def _dial(link: Link, port: int) -> Upstream:
    for pause in (*limits.GATEWAY_DIAL_BACKOFF_S, None):
        try:
            return await _try_once(link, port)
        except OSError as error:
            if pause is None or link.is_gone or keeps_alive(link, port):
                raise PortClosed(f"cannot connect to port {port}") from error
        await asyncio.sleep(pause)
    raise PortClosed(f"cannot connect to port {port}")


async def _try_once(link: Link, port: int) -> Upstream:
    loop = asyncio.get_running_loop()
    try:
        _, upstream = await loop.create_connection(lambda: Upstream(link, loop), link.address, port)
    except ConnectionRefusedError:
        if keeps_alive(link, port):
            raise
        upstream = await open_tunnel(link, port)
    if link.is_gone:
        upstream.reset()
        raise PortClosed("cannot connect: the sandbox is gone")
    return upstream
