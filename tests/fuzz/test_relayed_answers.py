"""Whatever a service in a sandbox answers: its client gets one well-formed answer, or a connection that breaks off."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import h11
import pytest
import uvloop

from tests.fuzz.corpus import fuzzed
from tests.integration.gateway_rig import Rig, read_head, running_gateway

pytestmark = pytest.mark.threat("B8")

ID = "abc"
PORT = 8000
HEAD = f"Host: {PORT}-{ID}.any.test\r\n\r\n"


@dataclass
class Service:
    """Says `says` to `GET /odd` and closes; to everything else it answers as one does."""

    rig: Rig
    runner: asyncio.Runner
    says: bytes = b""
    asked: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        self.asked.append(head)
        even = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\neven"
        writer.write(self.says if head.startswith(b"GET /odd ") else even)
        await writer.drain()

    async def exchange(self) -> bytes:
        """Two requests one behind the other on one connection: what the client is sent in all."""
        async with self.rig.raw() as raw:
            await raw.send(f"GET /odd HTTP/1.1\r\n{HEAD}GET /even HTTP/1.1\r\nConnection: close\r\n{HEAD}")
            return await raw.rest()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stack = AsyncExitStack()
        rig = runner.run(stack.enter_async_context(running_gateway()))
        one = Service(rig, runner)
        runner.run(rig.script(rig.routes.add(ID).address, one.serve, PORT))
        yield one
        runner.run(stack.aclose())


def answers(received: bytes) -> list[tuple[int, bytes, bool]]:
    """Status, body and wholeness of each answer, as a strict client reads them."""
    client = h11.Connection(h11.CLIENT)
    client.receive_data(received)
    client.receive_data(b"")
    read: list[tuple[int, bytes, bool]] = []
    for target in ("/odd", "/even"):
        client.send(h11.Request(method="GET", target=target, headers=[("Host", "x")]))
        client.send(h11.EndOfMessage())
        read.append(one_answer(client))
        if client.our_state is not h11.DONE or client.their_state is not h11.DONE:
            break
        client.start_next_cycle()
    assert not read[-1][2] or not client.trailing_data[0], f"more than was asked for: {received!r}"
    return read


def one_answer(client: h11.Connection) -> tuple[int, bytes, bool]:
    status, body = 0, b""
    while True:
        try:
            event = client.next_event()
        except h11.RemoteProtocolError as error:
            assert "peer" in str(error), f"not HTTP, and not just cut: {error}"
            return status, body, False
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, body, True
        elif isinstance(event, h11.ConnectionClosed):
            return status, body, False


@fuzzed("http-answer", usual=40)
def test_an_answer_is_one_answer(data: bytes, service: Service) -> None:
    service.says = data
    received = service.runner.run(service.exchange())
    read = answers(received)
    assert b"x-warren-control" not in received.lower()
    if len(read) == 2:
        assert read[1][1:] == (b"even", True), "the second request got what belongs to the first"
