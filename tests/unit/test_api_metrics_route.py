"""`GET /metrics`: who may read it, and that the numbers in it are those of what happened."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.unit.api_server import ApiServer, api_server
from tests.unit.waiting import eventually
from warren.api.app import create_app
from warren.contracts.guest import GuestIdentity
from warren.engine.fake.engine import LARGE
from warren.model.errors import Timeout

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[ApiServer]:
    async with api_server(tmp_path) as running:
        yield running


def peer(server: ApiServer, host: str) -> httpx.AsyncClient:
    """A client without a key at `host`."""
    transport = httpx.ASGITransport(create_app(server.control.context), client=(host, 5000))
    return httpx.AsyncClient(transport=transport, base_url="http://warren")


def numbers(server: ApiServer) -> list[str]:
    return server.control.meters.render().decode().splitlines()


async def test_this_machine_reads_it_without_a_key(server: ApiServer) -> None:
    for host in ("127.0.0.1", "127.8.9.10", "::1"):
        async with peer(server, host) as client:
            answer = await client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == server.control.meters.content_type
        assert "# TYPE warren_creates_total counter" in answer.text


@pytest.mark.parametrize("host", ["203.0.113.9", "128.0.0.1", "198.18.0.7", "2001:db8::1", "0.0.0.0", "", "testclient"])
async def test_others_need_a_key(server: ApiServer, host: str) -> None:
    async with peer(server, host) as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers={"X-API-KEY": "e2b_wrong"})).status_code == 401
        assert (await client.get("/metrics", headers={"X-API-KEY": server.key})).status_code == 200


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Origin"])
async def test_who_asks_through_somebody_local_needs_a_key(server: ApiServer, header: str) -> None:
    async with peer(server, "127.0.0.1") as client:
        for value in ("127.0.0.1", "http://elsewhere.test", ""):
            assert (await client.get("/metrics", headers={header: value})).status_code == 401
        with_key = await client.get("/metrics", headers={header: "x", "X-API-KEY": server.key})
        assert with_key.status_code == 200


async def test_requests_are_counted_by_route_and_never_by_path(server: ApiServer) -> None:
    for path in ("/sandboxes/isecret1", "/sandboxes/isecret2", "/nowhere/isecret3"):
        assert (await server.client.get(path)).status_code == 404
    assert (await server.client.put("/teams")).status_code == 405
    await server.client.request("ISECRET4", "/health")
    found = numbers(server)
    assert 'warren_api_requests_total{method="GET",route="/sandboxes/{sandbox_id}",status="404"} 2.0' in found
    assert 'warren_api_requests_total{method="GET",route="none",status="404"} 1.0' in found
    assert 'warren_api_requests_total{method="PUT",route="/teams",status="405"} 1.0' in found
    assert 'warren_api_requests_total{method="other",route="/health",status="405"} 1.0' in found
    assert 'warren_api_seconds_count{method="GET",route="/sandboxes/{sandbox_id}"} 2.0' in found
    assert "secret" not in "".join(found).lower()


async def test_a_request_that_the_application_fails_at_counts_as_500(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(server.store, "count_running", broken)
    monkeypatch.setattr(server.store, "sandboxes", broken)
    assert (await server.client.get("/v2/sandboxes")).status_code == 500
    assert 'warren_api_requests_total{method="GET",route="/v2/sandboxes",status="500"} 1.0' in numbers(server)


async def test_a_sandbox_s_life_is_counted(server: ApiServer) -> None:
    made = (await server.client.post("/v2/sandboxes", json={"templateID": "base"})).json()
    found = numbers(server)
    assert 'warren_creates_total{code="ok",runtime="runsc"} 1.0' in found
    assert 'warren_create_seconds_count{runtime="runsc"} 1.0' in found
    assert 'warren_sandboxes_running{runtime="runsc"} 1.0' in found
    await server.client.delete(f"/sandboxes/{made['sandboxID']}")
    found = numbers(server)
    assert 'warren_sandboxes_running{runtime="runsc"} 0.0' in found
    assert 'warren_ends_total{reason="killed"} 1.0' in found


async def test_a_death_is_counted_once(server: ApiServer) -> None:
    made = (await server.client.post("/v2/sandboxes", json={"templateID": "base"})).json()
    server.engine.kill_guest(made["sandboxID"])

    async def counted() -> bool:
        return 'warren_ends_total{reason="died"} 1.0' in numbers(server)

    await eventually(counted)
    assert (await server.client.delete(f"/sandboxes/{made['sandboxID']}")).status_code == 404
    ends = [line for line in numbers(server) if line.startswith("warren_ends_total{")]
    assert ends == ['warren_ends_total{reason="died"} 1.0']
    assert 'warren_sandboxes_running{runtime="runsc"} 0.0' in numbers(server)


async def test_failed_creates_are_counted_by_code_and_by_runtimes_that_exist(server: ApiServer) -> None:
    server.engine.fail_next = "no"
    assert (await server.client.post("/v2/sandboxes", json={"templateID": "base"})).status_code == 500
    body, headers = {"templateID": "base"}, {"X-Warren-Runtime": "isecret"}
    assert (await server.client.post("/v2/sandboxes", json=body, headers=headers)).status_code == 400
    limited = await server.other_project(sandboxes=0)
    assert (await server.client.post("/v2/sandboxes", json=body, headers=limited)).status_code == 429
    found = numbers(server)
    assert 'warren_creates_total{code="sandbox_create_failed",runtime="runsc"} 1.0' in found
    assert 'warren_creates_total{code="bad_request",runtime="unknown"} 1.0' in found
    assert 'warren_creates_total{code="limit_reached",runtime="runsc"} 1.0' in found
    assert [line for line in found if line.startswith("warren_ends_total{")] == [
        'warren_ends_total{reason="failed_to_start"} 1.0'
    ]
    assert "secret" not in "".join(found)
    assert not [line for line in found if line.startswith("warren_create_seconds_count")]


async def test_a_kill_during_the_start_is_one_end(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def killed_meanwhile(_: str, identity: GuestIdentity, __: float) -> None:
        await server.control.context.sandboxes.kill(server.project, identity.sandbox_id)
        raise Timeout

    monkeypatch.setattr(server.guest, "init", killed_meanwhile)
    assert (await server.client.post("/v2/sandboxes", json={"templateID": "base"})).status_code == 504
    found = numbers(server)
    assert [line for line in found if line.startswith("warren_ends_total{")] == [
        'warren_ends_total{reason="killed"} 1.0'
    ]
    assert 'warren_creates_total{code="sandbox_placement_timeout",runtime="runsc"} 1.0' in found


async def test_the_room_of_the_machine_is_for_the_same_readers(server: ApiServer) -> None:
    async with peer(server, "203.0.113.9") as stranger:
        assert (await stranger.get("/machine")).status_code == 401
    async with peer(server, "127.0.0.1") as client:
        before = (await client.get("/machine")).json()
        await server.client.post("/v2/sandboxes", json={"templateID": "base"})
        after = (await client.get("/machine")).json()
    assert after["sandboxes"] == before["sandboxes"] + 1
    assert after["memoryMB"]["committed"] == before["memoryMB"]["committed"] + 1024
    assert after["diskMB"]["committed"] == before["diskMB"]["committed"] + 2048


async def test_a_full_machine_refuses_with_the_code_of_the_contract(server: ApiServer) -> None:
    server.engine.machine.size = replace(LARGE, memory_available=0)
    answer = await server.client.post("/v2/sandboxes", json={"templateID": "base"})
    assert (answer.status_code, answer.json()["error_code"]) == (503, "sandbox_capacity_unavailable")
    assert answer.headers["should-retry"] == "false"
    assert "reserve" in answer.json()["message"]


async def test_sleep_is_counted_and_timed(server: ApiServer) -> None:
    made = (await server.client.post("/v2/sandboxes", json={"templateID": "base"})).json()
    path = f"/sandboxes/{made['sandboxID']}"
    await server.client.post(f"{path}/fork", json={"count": 2})
    await server.client.post(f"{path}/snapshots", json={})
    await server.client.post(f"{path}/pause", json={})
    await server.client.post(f"/v2{path}/connect", json={})
    found = numbers(server)
    for operation in ("fork", "snapshot", "pause", "resume"):
        assert f'warren_sleeps_total{{code="ok",operation="{operation}",runtime="runsc"}} 1.0' in found
        assert f'warren_sleep_seconds_count{{operation="{operation}",runtime="runsc"}} 1.0' in found
    server.engine.machine.slots = 0
    await server.client.post(f"{path}/pause", json={})
    await server.client.post(f"/v2{path}/connect", json={})
    labels = 'code="sandbox_capacity_unavailable",operation="resume",runtime="runsc"'
    assert f"warren_sleeps_total{{{labels}}} 1.0" in numbers(server)
