"""A gateway before sandboxes that are only addresses of the loopback: 127.x.y.z plays a sandbox each."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx
from aiohttp import web

from warren.audit.memory import MemoryAudit
from warren.contracts.routing import Route
from warren.control.activity import Activity
from warren.gateway.certificates import TlsFiles
from warren.gateway.links import abort
from warren.gateway.server import Gateway
from warren.model.errors import WarrenError
from warren.telemetry.meters import Meters

GUEST_PORT = 49983
DOMAIN = "e2b.localhost"
DEADLINE = 5.0
_numbers = itertools.count(1)

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
AppHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeRoutes:
    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.sleeping: dict[str, Route] = {}
        self.refusal: WarrenError | None = None
        self.wakes = 0
        self.elsewhere: dict[str, str] = {}
        self._callbacks: list[Callable[[str], None]] = []

    def find(self, sandbox_id: str) -> Route | None:
        return self.routes.get(sandbox_id)

    def all(self) -> list[Route]:
        return list(self.routes.values())

    def on_cut(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    async def asleep(self, sandbox_id: str) -> Route | None:
        return self.sleeping.get(sandbox_id)

    async def wake(self, sandbox_id: str) -> Route:
        self.wakes += 1
        if self.refusal is not None:
            raise self.refusal
        self.routes[sandbox_id] = self.sleeping.pop(sandbox_id)
        return self.routes[sandbox_id]

    async def name_of_home(self, sandbox_id: str) -> str | None:
        return self.elsewhere.get(sandbox_id)

    def kill(self, sandbox_id: str) -> None:
        del self.routes[sandbox_id]
        for callback in self._callbacks:
            callback(sandbox_id)

    def add(self, sandbox_id: str, **more: str | None) -> Route:
        number = next(_numbers)
        fields = {"address": f"127.{1 + os.getpid() % 200}.{number // 250}.{1 + number % 250}"}
        route = Route(sandbox_id, **{**fields, "access_token": None, "control_token": "control", **more})
        self.routes[sandbox_id] = route
        return route


@dataclass
class Rig:
    gateway: Gateway
    routes: FakeRoutes
    stack: AsyncExitStack
    meters: Meters
    audit: MemoryAudit
    client: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(trust_env=False, timeout=DEADLINE))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    async def app(self, address: str, handler: AppHandler, port: int) -> None:
        """A well-behaved service: an aiohttp server with one handler for everything."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(
            app, handler_cancellation=True, auto_decompress=False, access_log=None, shutdown_timeout=0.1
        )
        await runner.setup()
        self.stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, address, port).start()

    async def script(self, address: str, script: Script, port: int = GUEST_PORT) -> None:
        """A service that does what `script` does with the raw connection."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await script(reader, writer)
            writer.close()

        server = await asyncio.start_server(serve, address, port)
        self.stack.callback(server.close)

    @asynccontextmanager
    async def raw(self) -> AsyncIterator["RawClient"]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.port)
        try:
            yield RawClient(reader, writer)
        finally:
            abort(writer.transport)


@dataclass
class RawClient:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)
        async with asyncio.timeout(DEADLINE):
            await self.writer.drain()

    async def head(self) -> str:
        async with asyncio.timeout(DEADLINE):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")

    async def exactly(self, count: int) -> bytes:
        async with asyncio.timeout(DEADLINE):
            return await self.reader.readexactly(count)

    async def rest(self) -> bytes:
        """Everything until the gateway closes the connection."""
        received = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(DEADLINE):
                while data := await self.reader.read(65536):
                    received += data
        return received


@asynccontextmanager
async def running_gateway(api_port: int = 1, tls: TlsFiles | None = None) -> AsyncIterator[Rig]:
    routes, meters, audit = FakeRoutes(), Meters(), MemoryAudit()
    gateway = Gateway(
        routes,
        routes,
        Activity(),
        host="127.0.0.1",
        port=0,
        tls=tls,
        tls_port=0,
        domain=DOMAIN,
        api_port=api_port,
        meters=meters,
        audit=audit,
        name_of_home=routes.name_of_home,
    )
    async with AsyncExitStack() as stack:
        rig = Rig(gateway, routes, stack, meters, audit)
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        stack.push_async_callback(rig.client.aclose)
        yield rig


def to(sandbox_id: str, port: int = GUEST_PORT, **more: str) -> dict[str, str]:
    return {"E2b-Sandbox-Id": sandbox_id, "E2b-Sandbox-Port": str(port), **more}


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")
