"""The only way out for a tool that fetches images: an HTTP proxy that dials public addresses and listed registries.

Whoever builds a template names a host, and the registry there names others (redirects, token servers). Names are
resolved here, once for each connection, and the address that was judged is the one that is dialled.
"""

import asyncio
import base64
import ipaddress
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from warren.images.registries import HTTP_PORT, HTTPS_PORT, Endpoint, bare
from warren.model import limits

HEAD_BYTES = 64 * 1024
"""Bytes of one request's head."""
CHUNK_BYTES = 256 * 1024
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
HOP_BY_HOP = frozenset((b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive", b"te", b"upgrade"))
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[object, object, None]]


class Refused(Exception):
    """Why a connection is not made, in words that follow a colon."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """The HTTP proxy that the settings name. `url` has its credentials, if it wants any."""

    url: str = field(repr=False)

    async def dial(self, target: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """By name: who is behind such a proxy may not be able to look it up. Raises Refused, OSError."""
        place = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=CHUNK_BYTES)
        try:
            host = f"[{target[0]}]" if ":" in target[0] else target[0]
            lines = [f"CONNECT {host}:{target[1]} HTTP/1.1", f"Host: {host}:{target[1]}"]
            if place.username is not None:
                pair = f"{unquote(place.username)}:{unquote(place.password or '')}".encode()
                lines.append(f"Proxy-Authorization: Basic {base64.b64encode(pair).decode()}")
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            status = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1:2]
            if status != [b"200"]:
                said = b"".join(status).decode("latin-1")[:3]
                raise Refused(f"the proxy of the settings (WARREN_REGISTRY_PROXY) says {said!r} to {host}:{target[1]}")
        except BaseException:
            writer.close()
            raise
        return reader, writer


@dataclass
class Relay:
    """`trusted` are dialled wherever they are; what is at no private address goes through `upstream`, if there is one.
    `refusals`: what was asked for and not done, in words."""

    trusted: frozenset[Endpoint]
    upstream: Upstream | None = None
    refusals: list[str] = field(default_factory=list[str])
    _servers: list[asyncio.Server] = field(default_factory=list[asyncio.Server])
    _connections: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(limits.IMAGE_CONNECTIONS))

    async def proxy(self, listener: socket.socket) -> None:
        """Serve as an HTTP proxy on a listening socket, which may belong to another network namespace."""
        await self._serve(listener, self._proxied)

    async def forward(self, listener: socket.socket, target: Endpoint) -> None:
        """Pass every connection on to one place."""

        async def forwarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._joined(reader, writer, target, b"", b"")

        await self._serve(listener, forwarded)

    async def close(self) -> None:
        """No connection is open afterwards. Idempotent."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _serve(self, listener: socket.socket, serve: Serve) -> None:
        async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with self._places:
                    await serve(reader, writer)
            except Refused as refused:
                self.refusals.append(str(refused))
                writer.write(FORBIDDEN)
            except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                writer.write(BAD_GATEWAY)
            finally:
                writer.close()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(answered(reader, writer))  # noqa: TID251  # ended by close()
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        self._servers.append(await asyncio.start_server(connected, sock=listener, limit=HEAD_BYTES))

    async def _proxied(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(limits.IMAGE_DIAL_DEADLINE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        line, _, rest = head.partition(b"\r\n")
        method, target, version = line.decode("latin-1").split(" ")
        if method == "CONNECT":
            url = urlsplit(f"//{target}")
            place = (bare(url.hostname or ""), url.port or HTTPS_PORT)
            await self._joined(reader, writer, place, ESTABLISHED, b"")
            return
        url = urlsplit(target)
        if url.scheme != "http" or not url.hostname:
            raise Refused(f"{target[:200]!r} is no address of a registry")
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        # One request for each connection, so that none goes to another host than the one that was judged.
        kept = [each for each in rest.split(b"\r\n") if each and each.partition(b":")[0].lower() not in HOP_BY_HOP]
        asked = b"\r\n".join([f"{method} {path} {version}".encode("latin-1"), *kept, b"Connection: close", b"", b""])
        await self._joined(reader, writer, (bare(url.hostname), url.port or HTTP_PORT), b"", asked)

    async def _joined(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        target: Endpoint,
        greeting: bytes,
        asked: bytes,
    ) -> None:
        async with asyncio.timeout(limits.IMAGE_DIAL_DEADLINE_S):
            far_reader, far_writer = await self._dial(target)
        try:
            writer.write(greeting)
            far_writer.write(asked)
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, far_writer))
                group.create_task(_copy(far_reader, writer))
        except* OSError:
            pass  # either side went away: so does the other
        finally:
            far_writer.close()

    async def _dial(self, target: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = target
        addresses = await self._addresses(target)
        public = [address for address in addresses if is_public(address)]
        if self.upstream is not None and (public or not addresses):
            return await self.upstream.dial(target)
        if target not in self.trusted:
            addresses = public
            if not addresses:
                raise Refused(f"{host}:{port} has no public address")
        failure: OSError | None = None
        for address in addresses:
            try:
                return await asyncio.open_connection(address, port, limit=CHUNK_BYTES)
            except OSError as error:
                failure = error
        raise failure or OSError(f"no address for {host}")

    async def _addresses(self, target: Endpoint) -> list[str]:
        """Behind an upstream proxy the names of the internet are often known to that one alone."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(*target, type=socket.SOCK_STREAM)
        except socket.gaierror:
            if self.upstream is None:
                raise
            return []
        return [str(each[4][0]) for each in found]


def is_public(address: str) -> bool:
    """Whether an address is one of the internet at large: nobody's private network, no neighbour, not this machine."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # with a zone: a neighbour's
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in NAT64:
            inner = ipaddress.IPv4Address(ip.packed[-4:])
        if inner is not None and not is_public(str(inner)):
            return False
    return ip.is_global and not ip.is_multicast and not _is_this_machine(ip)


def _is_this_machine(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(ip), 0))
    except OSError:
        return False
    return True


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
