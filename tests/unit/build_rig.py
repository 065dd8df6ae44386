"""Builds against the in-memory server: a builder that does what a test says."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.unit.api_server import ApiServer
from warren.contracts.building import BuildOrder, Say
from warren.model.build import Built

DIGEST = "sha256:" + "b" * 64
BUILT = Built(DIGEST, "root", "/srv", {"PATH": "/opt/bin:/bin", "FROM": "template"})

Work = Callable[[BuildOrder, Say], Awaitable[Built]]


async def at_once(_: BuildOrder, say: Say) -> Built:
    return BUILT


@dataclass
class FakeBuilder:
    """`orders` are those that were begun. What a test wants to happen is `work`."""

    work: Work = at_once
    orders: list[BuildOrder] = field(default_factory=list[BuildOrder])
    broken_off: list[str] = field(default_factory=list[str])

    async def build(self, order: BuildOrder, say: Say) -> Built:
        self.orders.append(order)
        try:
            return await self.work(order, say)
        except asyncio.CancelledError:
            self.broken_off.append(order.id)
            raise


async def begun(builder: FakeBuilder) -> None:
    """Until the builder has its first order."""
    async with asyncio.timeout(10):
        while not builder.orders:
            await asyncio.sleep(0.01)


async def request(server: ApiServer, name: str = "mine", **fields: Any) -> dict[str, Any]:
    answer = await server.client.post("/v3/templates", json={"name": name, **fields})
    assert answer.status_code == 202, answer.text
    return answer.json()


async def start(server: ApiServer, made: dict[str, Any], **fields: Any) -> None:
    body = {"fromImage": "debian:12", **fields}
    answer = await server.client.post(f"/v2/templates/{made['templateID']}/builds/{made['buildID']}", json=body)
    assert (answer.status_code, answer.content) == (202, b""), answer.text


async def status(server: ApiServer, made: dict[str, Any], **query: Any) -> dict[str, Any]:
    path = f"/templates/{made['templateID']}/builds/{made['buildID']}/status"
    answer = await server.client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def ended(server: ApiServer, made: dict[str, Any]) -> dict[str, Any]:
    """The status once there is nothing more to come."""
    async with asyncio.timeout(10):
        while (now := await status(server, made))["status"] in ("waiting", "building"):
            await asyncio.sleep(0.01)
    return now


async def built(server: ApiServer, name: str = "mine", **fields: Any) -> dict[str, Any]:
    made = await request(server, name, **fields)
    await start(server, made)
    assert (await ended(server, made))["status"] == "ready"
    return made
