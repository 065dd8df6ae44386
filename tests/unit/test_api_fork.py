"""Forks through the API, over the in-memory engine, guest and store."""

from typing import Any

import pytest

from tests.unit.api_server import ApiServer
from tests.unit.test_api_sleep import code, create, detail, kept, post, server

__all__ = ["server"]
pytestmark = pytest.mark.anyio


async def test_a_fork_gives_copies_with_identities_of_their_own(server: ApiServer) -> None:
    source = await create(server, envVars={"SECRET": "x"}, metadata={"k": "v"})
    answer = await post(server, source, "fork", count=3, timeout=60)
    assert answer.status_code == 201
    copies = [item["sandbox"] for item in answer.json()]
    assert len({copy["sandboxID"] for copy in copies} | {source}) == 4
    assert len({copy["envdAccessToken"] for copy in copies}) == 3
    for copy in copies:
        identity = server.guest.identities[copy["sandboxID"]]
        assert (identity.envs, identity.is_copy) == ({}, True)
        assert (await detail(server, copy["sandboxID"]))["metadata"] == {"k": "v"}
    assert await kept(server) == []
    assert server.control.live.find(source) is not None


async def test_a_fork_inherits_the_environment_only_when_asked(server: ApiServer) -> None:
    source = await create(server, envVars={"SECRET": "x"})
    for body, envs in (({"inheritEnvVars": True}, None), ({"envVars": {"A": "1"}}, {"A": "1"})):
        (item,) = (await post(server, source, "fork", **body)).json()
        identity = server.guest.identities[item["sandbox"]["sandboxID"]]
        assert (identity.envs, identity.recalls_envs) == (envs, False)
    assert not server.guest.retained


async def test_a_copy_that_boots_finds_its_source_s_environment_among_the_files(server: ApiServer) -> None:
    source = await create(server, envVars={"SECRET": "x"}, runtime="crun")
    for body, recalls in (({}, False), ({"inheritEnvVars": True}, True)):
        (item,) = (await post(server, source, "fork", **body)).json()
        assert server.guest.identities[item["sandbox"]["sandboxID"]].recalls_envs is recalls
    assert server.guest.retained == [server.control.live.find(source).control_token]
    server.guest.silent = True
    answer = await post(server, source, "fork", inheritEnvVars=True)
    assert (answer.status_code, answer.json()["error_code"]) == (503, "guest_silent")
    assert await kept(server) == []


async def test_each_copy_has_an_outcome_of_its_own(server: ApiServer) -> None:
    headers = await server.other_project(sandboxes=3)
    source = (await server.client.post("/v2/sandboxes", json={"templateID": "base"}, headers=headers)).json()
    answer = await server.client.post(
        f"/sandboxes/{source['sandboxID']}/fork", json={"count": 4, "timeout": 60}, headers=headers
    )
    assert answer.status_code == 201
    assert sum("sandbox" in item for item in answer.json()) == 2
    errors = [item["error"] for item in answer.json() if "error" in item]
    assert [(error["code"], error["error_code"]) for error in errors] == [(429, "limit_reached")] * 2
    assert await kept(server) == []


@pytest.mark.parametrize("count", [0, 21, "2", None])
async def test_a_fork_takes_1_to_20(server: ApiServer, count: Any) -> None:
    source = await create(server)
    assert (await post(server, source, "fork", count=count)).status_code == 400


async def test_a_fork_that_fails_at_the_checkpoint_is_one_error_and_leaves_nothing(server: ApiServer) -> None:
    source = await create(server)
    server.engine.machine.is_full = True
    assert code(await post(server, source, "fork")) == (507, "no_space")
    assert len(await server.engine.list()) == 1


async def test_a_guest_that_is_known_to_be_silent_is_not_asked_before_a_fork(server: ApiServer) -> None:
    source = await create(server, envVars={"SECRET": "x"}, runtime="crun")
    server.control.live.mark(server.control.live.find(source), answers=False)
    answer = await post(server, source, "fork", inheritEnvVars=True)
    assert (answer.status_code, answer.json()["error_code"]) == (503, "guest_silent")
    assert not server.guest.retained
