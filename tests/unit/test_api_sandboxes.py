"""The sandbox routes over the in-memory engine: forms, statuses and life cycle."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_server import BASE, ApiServer, api_server
from warren.contracts.guest import Exit, GuestCommand, OnLine
from warren.model import limits
from warren.model.sandbox import SANDBOX_ID

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[ApiServer]:
    async with api_server(tmp_path) as running:
        yield running


async def create(server: ApiServer, **fields: Any) -> dict[str, Any]:
    answer = await server.client.post("/v2/sandboxes", json={"templateID": "base", **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def is_error(answer: Any, status: int) -> bool:
    body = answer.json()
    return answer.status_code == status and body["code"] == status and bool(body["message"])


async def test_create_answers_with_what_a_client_needs(server: ApiServer) -> None:
    made = await create(server, metadata={"a": "b"}, envVars={"X": "1"})
    assert SANDBOX_ID.fullmatch(made["sandboxID"])
    assert made["templateID"] == "tbase"
    assert made["envdAccessToken"]
    assert "trafficAccessToken" not in made
    assert made["domain"] == "e2b.localhost:3443"
    assert server.guest.identities[made["sandboxID"]].envs == {"X": "1"}


async def test_create_without_timeout_lives_300_seconds_and_on_the_older_route_15(server: ApiServer) -> None:
    for route, seconds in (("/v2/sandboxes", 300), ("/sandboxes", 15)):
        made = (await server.client.post(route, json={"templateID": "base"})).json()
        seen = (await server.client.get(f"/sandboxes/{made['sandboxID']}")).json()
        life = datetime.fromisoformat(seen["endAt"]) - datetime.fromisoformat(seen["startedAt"])
        assert life.total_seconds() == seconds


async def test_the_older_route_leaves_the_guest_open_unless_told_otherwise(server: ApiServer) -> None:
    open_one = (await server.client.post("/sandboxes", json={"templateID": "base"})).json()
    secured = (await server.client.post("/sandboxes", json={"templateID": "base", "secure": True})).json()
    assert "envdAccessToken" not in open_one
    assert secured["envdAccessToken"]


async def test_a_chunked_body_without_length_is_read(server: ApiServer) -> None:
    async def chunks() -> AsyncGenerator[bytes]:
        yield b'{"templateID"'
        yield b':"base"}'

    answer = await server.client.post("/v2/sandboxes", content=chunks(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 201


async def test_kill_is_204_once_and_404_afterwards(server: ApiServer) -> None:
    made = await create(server)
    first = await server.client.delete(f"/sandboxes/{made['sandboxID']}")
    second = await server.client.delete(f"/sandboxes/{made['sandboxID']}")
    assert (first.status_code, first.content) == (204, b"")
    assert is_error(second, 404)
    assert f'Sandbox "{made["sandboxID"]}" doesn\'t exist' in second.json()["message"]


async def test_concurrent_kills_join_and_destroy_once(server: ApiServer) -> None:
    made = await create(server)
    answers = await asyncio.gather(*(server.client.delete(f"/sandboxes/{made['sandboxID']}") for _ in range(5)))
    assert {answer.status_code for answer in answers} <= {204, 404}
    assert any(answer.status_code == 204 for answer in answers)
    assert await server.engine.list() == []


async def test_another_project_sees_the_same_404_as_for_an_unknown_id(server: ApiServer) -> None:
    made = await create(server)
    foreign = await server.other_project()
    sandbox_id, unknown = made["sandboxID"], "i" + "0" * 20
    for method, path, body in (
        ("GET", "/sandboxes/{}", None),
        ("DELETE", "/sandboxes/{}", None),
        ("POST", "/v2/sandboxes/{}/connect", {"timeout": 5}),
        ("POST", "/sandboxes/{}/timeout", {"timeout": 5}),
        ("POST", "/sandboxes/{}/refreshes", {}),
        ("POST", "/sandboxes/{}/pause", {}),
        ("PUT", "/sandboxes/{}/network", {}),
        ("GET", "/sandboxes/{}/metrics", None),
        ("GET", "/sandboxes/{}/logs", None),
        ("GET", "/v2/sandboxes/{}/logs", None),
    ):
        answers = [
            await server.client.request(method, path.format(one), json=body, headers=foreign)
            for one in (sandbox_id, unknown)
        ]
        assert all(is_error(answer, 404) for answer in answers), path
        texts = [answer.text.replace(one, "ID") for answer, one in zip(answers, (sandbox_id, unknown), strict=True)]
        assert texts[0] == texts[1]


@pytest.mark.parametrize("headers", [{"X-API-KEY": ""}, {"X-API-KEY": "e2b_" + "0" * 40}])
async def test_a_missing_or_unknown_key_is_401(server: ApiServer, headers: dict[str, str]) -> None:
    assert is_error(await server.client.get("/v2/sandboxes", headers=headers), 401)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"templateID": 7},
        {"templateID": "base", "timeout": 0},
        {"templateID": "base", "timeout": -1},
        {"templateID": "base", "timeout": 10**9},
        {"templateID": "base", "timeout": "5"},
        {"templateID": "no spaces"},
        {"templateID": "base", "metadata": {"a": 1}},
        {"templateID": "base", "metadata": {"a": "x" * 20_000}},
        {"templateID": "base", "envVars": {"A=B": "1"}},
        {"templateID": "base", "envVars": {"A": "\0"}},
        {"templateID": "base", "runtime": "nope"},
        {"templateID": "base", "cpuCount": 0},
        {"templateID": "base", "memoryMB": 10**6},
        {"templateID": "base", "diskMB": 1},
        {"templateID": "base", "volumeMounts": [{"name": "v", "path": "/v"}]},
        {"templateID": "base", "network": {"denyOut": ["example.com"]}},
        {"templateID": "base", "network": {"allowOut": ["example.com"]}},
        {"templateID": "base", "autoPauseMemory": False},
    ],
)
async def test_bad_input_is_400_and_leaves_nothing(server: ApiServer, body: dict[str, Any]) -> None:
    assert is_error(await server.client.post("/v2/sandboxes", json=body), 400)
    assert await server.engine.list() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"iam": {"tokens": {"a": {"audience": "b", "tokenType": "JWT-SVID"}}}},
        {"network": {"rules": {"example.com": [{}]}}},
        {"network": {"dnsServers": ["9.9.9.9"]}},
        {"network": {"allowOut": ["example.com"], "denyOut": ["0.0.0.0/0"]}},
    ],
)
async def test_what_is_not_supported_is_501_and_never_ignored(server: ApiServer, fields: dict[str, Any]) -> None:
    assert is_error(await server.client.post("/v2/sandboxes", json={"templateID": "base", **fields}), 501)


async def test_an_unknown_template_is_404(server: ApiServer) -> None:
    answer = await server.client.post("/v2/sandboxes", json={"templateID": "nope"})
    assert is_error(answer, 404)
    assert answer.json()["message"] == "template 'nope' not found"


async def test_the_quota_answers_429_by_name_and_asks_not_to_retry(server: ApiServer) -> None:
    headers = await server.other_project(sandboxes=1)
    assert (await server.client.post("/v2/sandboxes", json={"templateID": "base"}, headers=headers)).status_code == 201
    refused = await server.client.post("/v2/sandboxes", json={"templateID": "base"}, headers=headers)
    assert is_error(refused, 429)
    assert "sandboxes" in refused.json()["message"]
    assert refused.headers["Should-Retry"] == "false"


async def test_a_guest_that_never_answers_leaves_nothing(server: ApiServer) -> None:
    server.guest.silent = True
    assert is_error(await server.client.post("/v2/sandboxes", json={"templateID": "base"}), 504)
    assert await server.engine.list() == []
    assert (await server.client.get("/v2/sandboxes")).json() == []


async def test_connect_extends_and_never_shortens_but_timeout_does(server: ApiServer) -> None:
    made = await create(server, timeout=100)
    path = f"/sandboxes/{made['sandboxID']}"

    async def left() -> float:
        seen = (await server.client.get(path)).json()
        return (datetime.fromisoformat(seen["endAt"]) - datetime.fromisoformat(seen["startedAt"])).total_seconds()

    answer = await server.client.post(f"/v2{path}/connect", json={"timeout": 10})
    assert answer.status_code == 200
    assert answer.json()["envdAccessToken"] == made["envdAccessToken"]
    assert await left() == 100
    await server.client.post(f"/v2{path}/connect", json={"timeout": 1000})
    assert await left() >= 1000
    assert (await server.client.post(f"{path}/timeout", json={"timeout": 50})).status_code == 204
    assert await left() < 100


async def test_timeout_zero_ends_the_sandbox_now(server: ApiServer) -> None:
    made = await create(server)
    await server.client.post(f"/sandboxes/{made['sandboxID']}/timeout", json={"timeout": 0})
    async with asyncio.timeout(5):
        while await server.engine.list():
            await asyncio.sleep(0.01)
    assert is_error(await server.client.get(f"/sandboxes/{made['sandboxID']}"), 404)


async def test_a_death_is_noticed(server: ApiServer) -> None:
    made = await create(server)
    server.engine.kill_guest(made["sandboxID"])
    async with asyncio.timeout(5):
        while (await server.client.get("/v2/sandboxes")).json():
            await asyncio.sleep(0.01)
    assert server.control.live.find(made["sandboxID"]) is None


async def test_list_filters_orders_and_pages(server: ApiServer) -> None:
    made = [await create(server, metadata={"n": str(n), "odd key/=&": "a b%"}) for n in range(5)]
    ids = [one["sandboxID"] for one in made]
    assert [row["sandboxID"] for row in (await server.client.get("/v2/sandboxes")).json()] == ids[::-1]
    ascending = await server.client.get("/v2/sandboxes", params={"order": "asc", "limit": 2})
    assert [row["sandboxID"] for row in ascending.json()] == ids[:2]
    assert ascending.headers["X-Total-Running"] == "5"
    following = await server.client.get(
        "/v2/sandboxes", params={"order": "asc", "limit": 3, "nextToken": ascending.headers["x-next-token"]}
    )
    assert [row["sandboxID"] for row in following.json()] == ids[2:]
    assert "x-next-token" not in following.headers
    doubled = await server.client.get(
        "/v2/sandboxes", params={"metadata": "n=3&odd%2520key%252F%253D%2526=a%2520b%2525"}
    )
    assert [row["sandboxID"] for row in doubled.json()] == [ids[3]]
    assert (await server.client.get("/v2/sandboxes", params={"state": "paused"})).json() == []
    after = made[2]["sandboxID"]
    started = next(row for row in (await server.client.get("/v2/sandboxes")).json() if row["sandboxID"] == after)
    since = await server.client.get("/v2/sandboxes", params={"startedAfter": started["startedAt"]})
    assert [row["sandboxID"] for row in since.json()] == ids[:1:-1]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "nextToken=rubbish", "order=up", "state=gone", "metadata=x"])
async def test_bad_list_queries_are_400(server: ApiServer, query: str) -> None:
    assert is_error(await server.client.get(f"/v2/sandboxes?{query}"), 400)


async def test_a_repeated_idempotency_key_finds_the_first_sandbox(server: ApiServer) -> None:
    headers = {"Idempotency-Key": "abc-1"}
    body = {"templateID": "base", "timeout": 60}
    first, again = [await server.client.post("/v2/sandboxes", json=body, headers=headers) for _ in range(2)]
    assert first.json() == again.json()
    assert len(await server.engine.list()) == 1
    other = await server.client.post("/v2/sandboxes", json={**body, "timeout": 61}, headers=headers)
    assert is_error(other, 422)


async def test_an_idempotency_key_is_free_again_after_a_failure(server: ApiServer) -> None:
    headers = {"Idempotency-Key": "abc-2"}
    server.guest.silent = True
    assert is_error(await server.client.post("/v2/sandboxes", json={"templateID": "base"}, headers=headers), 504)
    server.guest.silent = False
    retried = await server.client.post("/v2/sandboxes", json={"templateID": "base"}, headers=headers)
    assert retried.status_code == 201


async def test_private_traffic_gives_a_token(server: ApiServer) -> None:
    made = await create(server, network={"allowPublicTraffic": False, "maskRequestHost": "localhost:${PORT}"})
    assert made["trafficAccessToken"] not in (None, made["envdAccessToken"])
    seen = (await server.client.get(f"/sandboxes/{made['sandboxID']}")).json()
    assert seen["network"]["allowPublicTraffic"] is False
    assert seen["network"]["maskRequestHost"] == "localhost:${PORT}"
    assert is_error(
        await server.client.post("/sandboxes", json={"templateID": "base", "network": {"allowPublicTraffic": False}}),
        400,
    )


async def test_network_update_replaces_everything_but_the_inbound_side(server: ApiServer) -> None:
    made = await create(server, network={"denyOut": ["203.0.113.0/24"], "maskRequestHost": "x"})
    path = f"/sandboxes/{made['sandboxID']}"
    answer = await server.client.put(f"{path}/network", json={"allow_internet_access": False})
    assert answer.status_code == 204
    seen = (await server.client.get(path)).json()
    assert seen["allowInternetAccess"] is False
    assert seen["network"]["denyOut"] == []
    assert seen["network"]["maskRequestHost"] == "x"


async def test_unknown_routes_and_methods_have_error_bodies_too(server: ApiServer) -> None:
    as_json = {"Content-Type": "application/json"}
    assert is_error(await server.client.get("/nowhere"), 404)
    assert is_error(await server.client.put("/v2/sandboxes", json={}), 405)
    assert is_error(await server.client.post("/v2/sandboxes", content=b"{", headers=as_json), 400)
    assert is_error(await server.client.post("/v2/sandboxes", content=b"x" * 2_000_000, headers=as_json), 413)


async def test_services_that_are_not_up_in_time_answer_503_and_leave_nothing(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(command: GuestCommand, on_line: OnLine) -> Exit:
        del command, on_line
        return Exit(1)

    monkeypatch.setattr(limits, "SERVICES_DEADLINE_S", 0.05)
    server.workshop.programs = {"ready": fails}
    await server.store.put_template(replace(BASE, start_command="serve", ready_command="ready"))
    refused = await server.client.post("/v2/sandboxes", json={"templateID": "base"})
    assert is_error(refused, 503)
    assert refused.json()["error_code"] == "sandbox_services_not_ready"
    assert "'ready' did not succeed within 0.05 s" in refused.json()["message"]
    assert (await server.client.get("/v2/sandboxes")).json() == []
    assert not server.engine.machine.sandboxes
