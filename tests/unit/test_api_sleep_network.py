"""Rules of what sleeps and of copies, over the in-memory engine: which of them the engine is told."""

from collections.abc import AsyncGenerator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.unit.api_server import ApiServer, api_server
from tests.unit.test_api_sleep import code, detail, paused, post
from warren.model.policy import ALL_TRAFFIC, EgressPolicy
from warren.model.sandbox import State

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[ApiServer]:
    async with api_server(tmp_path) as running:
        yield running


@pytest.mark.parametrize("runtime", ["runsc", "crun"])
async def test_the_rules_of_its_row_are_in_force_when_it_wakes_and_in_its_copies(
    server: ApiServer, runtime: str
) -> None:
    sandbox = await paused(server, runtime=runtime, allow_internet_access=False)
    assert (await post(server, sandbox, "connect")).status_code == 201
    assert server.engine.egress(sandbox) == EgressPolicy(deny=(ALL_TRAFFIC,))
    (copy,) = (await post(server, sandbox, "fork")).json()
    assert server.engine.egress(copy["sandbox"]["sandboxID"]) == EgressPolicy(deny=(ALL_TRAFFIC,))
    assert (await post(server, sandbox, "pause")).status_code == 204
    rules = {"denyOut": ["203.0.113.0/24"]}
    assert (await server.client.put(f"/sandboxes/{sandbox}/network", json=rules)).status_code == 204
    found = await detail(server, sandbox)
    assert (found["state"], found["network"]["denyOut"]) == ("paused", ["203.0.113.0/24"])
    assert (await post(server, sandbox, "connect")).status_code == 201
    assert server.engine.egress(sandbox) == EgressPolicy(deny=(IPv4Network("203.0.113.0/24"),))


async def test_rules_do_not_change_while_it_wakes_up(server: ApiServer) -> None:
    sandbox = await paused(server)
    await server.store.move(sandbox, frozenset({State.PAUSED}), State.RESUMING)
    assert code(await server.client.put(f"/sandboxes/{sandbox}/network", json={})) == (409, "sandbox_changing")
