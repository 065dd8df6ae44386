"""A guest that falls silent is marked and cut off, and heard again; a slow server condemns nobody."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.unit.api_server import ApiServer, api_server
from tests.unit.waiting import eventually
from warren.contracts.store import LogQuery
from warren.model import limits
from warren.model.health import Silence

pytestmark = pytest.mark.anyio


def test_silence_is_proof_after_several_misses_over_a_while() -> None:
    silence = Silence(100.0)
    for _ in range(limits.HEALTH_MISSES - 2):
        silence = silence.longer()
    assert not silence.is_proof(100.0 + 10 * limits.HEALTH_SILENCE_S), "too few calls"
    silence = silence.longer()
    assert not silence.is_proof(100.0 + limits.HEALTH_SILENCE_S / 2), "too short a while"
    assert silence.is_proof(100.0 + limits.HEALTH_SILENCE_S)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[ApiServer]:
    monkeypatch.setattr(limits, "HEALTH_PERIOD_S", 0.001)
    monkeypatch.setattr(limits, "HEALTH_SILENCE_S", 0.05)
    async with api_server(tmp_path) as running:
        yield running


@pytest.fixture
async def sandbox(server: ApiServer) -> str:
    return (await server.client.post("/v2/sandboxes", json={"templateID": "base"})).json()["sandboxID"]


async def health(server: ApiServer, sandbox: str) -> str:
    return (await server.client.get(f"/sandboxes/{sandbox}")).json()["health"]


async def test_a_guest_that_stops_answering_is_marked_cut_off_and_heard_again(server: ApiServer, sandbox: str) -> None:
    cut: list[str] = []
    server.control.live.on_cut(cut.append)
    asking = asyncio.ensure_future(server.control.health.run())
    assert await health(server, sandbox) == "ok"
    server.guest.silent = True
    await eventually(lambda: _is(server, sandbox, "unresponsive"))
    route = server.control.live.find(sandbox)
    assert route is not None
    assert not route.answers
    assert cut == [sandbox]
    server.guest.silent = False
    await eventually(lambda: _is(server, sandbox, "ok"))
    assert cut == [sandbox]
    said = [entry.message for entry in await server.store.logs(sandbox, LogQuery())]
    assert said == ["the guest does not answer", "the guest answers again"]
    assert (await server.client.delete(f"/sandboxes/{sandbox}")).status_code == 204
    asking.cancel()


async def _is(server: ApiServer, sandbox: str, what: str) -> bool:
    return await health(server, sandbox) == what


async def test_the_scrape_counts_silent_guests(server: ApiServer, sandbox: str) -> None:
    server.guest.silent = True
    asking = asyncio.ensure_future(server.control.health.run())
    await eventually(lambda: _counted(server, "1.0"))
    await server.client.delete(f"/sandboxes/{sandbox}")
    await eventually(lambda: _counted(server, "0.0"))
    asking.cancel()


async def _counted(server: ApiServer, number: str) -> bool:
    return f"warren_sandboxes_unresponsive {number}" in (await server.client.get("/metrics")).text


async def test_what_a_late_server_missed_is_not_held_against_a_guest(
    server: ApiServer, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEALTH_PULSE_S", 0.0)
    monkeypatch.setattr(limits, "HEALTH_LATENESS_S", 0.01)
    asked = 0

    async def starved(address: str) -> None:
        nonlocal asked
        asked += 1
        time.sleep(0.03)  # nobody else has a turn meanwhile: that is the point
        await asyncio.sleep(0.01)
        await type(server.guest).check(server.guest, address)

    server.guest.silent = True
    monkeypatch.setattr(server.guest, "check", starved)
    asking = asyncio.ensure_future(server.control.health.run())
    async with asyncio.timeout(30):
        while asked < 4 * limits.HEALTH_MISSES:
            await asyncio.sleep(0.01)
    assert await health(server, sandbox) == "ok"
    asking.cancel()
