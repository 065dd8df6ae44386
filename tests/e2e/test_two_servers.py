"""Two servers on one machine that share a Postgres: each sandbox has one home, and every deadline holds."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from e2b import Sandbox, SandboxNotFoundException
from e2b.exceptions import ServiceBusyException

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until
from tests.postgres_cluster import Cluster, cluster

BUSY_MACHINE_S = 60
"""Seconds for what takes one or two on a machine that has nothing else to do."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Cluster]:
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    with cluster() as running:
        yield running


@pytest.fixture(scope="module")
def pair(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalServer, LocalServer]]:
    """`alpha` and `beta`, on the fast runtime: what is tested here knows nothing of runtimes."""
    common: dict[str, str | int] = {"database_url": postgres.create("warren"), "runtime": "crun", "pool_slots": 2}
    alpha, beta = (LocalServer(tmp_path_factory.mktemp(name), server_name=name, **common) for name in ("alpha", "beta"))
    with nothing_left(alpha), nothing_left(beta), alpha, beta:
        yield alpha, beta
        for server in (alpha, beta):
            for sandbox_id in ids(server):
                Sandbox.kill(sandbox_id, **server.options)


def ids(server: LocalServer) -> set[str]:
    return {info.sandbox_id for info in Sandbox.list(**server.options).next_items()}


def rest(server: LocalServer, method: str, path: str, **body: Any) -> httpx.Response:
    headers = {"X-API-KEY": server.api_key}
    return httpx.request(method, server.api_url + path, headers=headers, json=body or None, timeout=BUSY_MACHINE_S)


def test_both_show_every_sandbox_and_take_each_others_keys(pair: tuple[LocalServer, LocalServer]) -> None:
    alpha, beta = pair
    first = Sandbox.create(timeout=300, metadata={"made": "there"}, **alpha.options)
    second = Sandbox.create(timeout=300, **{**beta.options, "api_key": alpha.api_key})
    assert ids(alpha) == ids(beta) == {first.sandbox_id, second.sandbox_id}
    info = Sandbox.get_info(first.sandbox_id, **beta.options)
    assert info.metadata == {"made": "there"}
    until(
        lambda: Sandbox.get_metrics(first.sandbox_id, **beta.options), BUSY_MACHINE_S, "metrics are seen from elsewhere"
    )
    for sandbox in (first, second):
        assert sandbox.commands.run("echo here").stdout == "here\n"
        assert sandbox.kill()


def test_a_kill_sent_to_the_other_server_is_done_when_it_is_answered(pair: tuple[LocalServer, LocalServer]) -> None:
    alpha, beta = pair
    sandbox = Sandbox.create(timeout=300, **alpha.options)
    assert Sandbox.kill(sandbox.sandbox_id, **beta.options) is True
    assert not sandbox.is_running()
    assert Sandbox.kill(sandbox.sandbox_id, **beta.options) is False
    with pytest.raises(SandboxNotFoundException):
        sandbox.get_info()


def test_a_deadline_moved_through_the_other_server_holds(pair: tuple[LocalServer, LocalServer]) -> None:
    alpha, beta = pair
    sandbox = Sandbox.create(timeout=300, **alpha.options)
    Sandbox.set_timeout(sandbox.sandbox_id, 2, **beta.options)
    until(lambda: not sandbox.is_running(), BUSY_MACHINE_S, "it is ended at the new deadline")
    assert sandbox.sandbox_id not in ids(alpha) | ids(beta)


def test_what_only_the_home_can_do_is_refused_with_its_name(pair: tuple[LocalServer, LocalServer]) -> None:
    alpha, beta = pair
    sandbox = Sandbox.create(timeout=300, **alpha.options)
    path = f"/sandboxes/{sandbox.sandbox_id}"
    for answer in (
        rest(beta, "POST", f"/v2{path}/connect", timeout=60),
        rest(beta, "PUT", f"{path}/network", allowOut=["203.0.113.9"]),
    ):
        assert (answer.status_code, answer.json()["error_code"]) == (503, "server_away"), answer.text
        assert "'alpha'" in answer.json()["message"]
        assert answer.headers["Should-Retry"] == "false"
    with pytest.raises(ServiceBusyException, match="alpha"):
        Sandbox.connect(sandbox.sandbox_id, **beta.options)
    headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "8000"}

    def named() -> bool:
        answer = httpx.get(beta.gateway_url, headers=headers)
        assert answer.status_code == 502
        return "alpha" in answer.json()["message"]

    until(named, BUSY_MACHINE_S, "the gateway names the server that has it")
    assert sandbox.commands.run("echo untouched").stdout == "untouched\n"
    assert sandbox.kill()


@pytest.mark.threat("E4")
def test_a_restart_of_one_adopts_its_own_and_leaves_the_others_alone(pair: tuple[LocalServer, LocalServer]) -> None:
    alpha, beta = pair
    mine, theirs = Sandbox.create(timeout=300, **alpha.options), Sandbox.create(timeout=300, **beta.options)
    alpha.kill()
    alpha.start()
    assert ids(alpha) == {mine.sandbox_id, theirs.sandbox_id}
    for sandbox in (mine, theirs):
        assert sandbox.commands.run("echo alive").stdout == "alive\n"
        assert sandbox.kill()


@pytest.mark.threat("E4")
def test_while_a_server_is_away_its_deadlines_hold_and_its_places_come_free(
    pair: tuple[LocalServer, LocalServer],
) -> None:
    alpha, beta = pair
    due, unwanted, kept = (Sandbox.create(timeout=300, **alpha.options) for _ in range(3))
    alpha.kill()
    Sandbox.set_timeout(due.sandbox_id, 2, **beta.options)
    end_at = Sandbox.get_info(due.sandbox_id, **beta.options).end_at
    assert Sandbox.kill(unwanted.sandbox_id, **beta.options) is True
    until(lambda: ids(beta) == {kept.sandbox_id}, BUSY_MACHINE_S, "the other server gave the overdue one up")
    assert datetime.now(UTC) >= end_at
    logs = rest(beta, "GET", f"/v2/sandboxes/{due.sandbox_id}/logs")
    assert "lost" in logs.text
    assert alpha.placement(due.sandbox_id), "its processes live on: nobody was there to end them"
    alpha.start()
    assert kept.commands.run("echo kept").stdout == "kept\n"
    for gone in (due, unwanted):
        assert not gone.is_running()
        with pytest.raises(FileNotFoundError):
            alpha.placement(gone.sandbox_id)
    assert kept.kill()


@pytest.mark.threat("E5")
def test_a_database_that_is_away_for_a_while_costs_no_sandbox_and_no_deadline(
    pair: tuple[LocalServer, LocalServer], postgres: Cluster
) -> None:
    alpha, _ = pair
    kept, due = (Sandbox.create(timeout=300, **alpha.options) for _ in range(2))
    Sandbox.set_timeout(due.sandbox_id, 2, **alpha.options)
    postgres.stop()
    try:
        answer = rest(alpha, "GET", f"/sandboxes/{kept.sandbox_id}")
        assert (answer.status_code, answer.headers["Should-Retry"]) == (503, "false"), answer.text
        assert kept.commands.run("echo works").stdout == "works\n"
    finally:
        postgres.start()
    until(lambda: not due.is_running(), BUSY_MACHINE_S, "the deadline is enforced")
    until(lambda: ids(alpha) == {kept.sandbox_id}, BUSY_MACHINE_S, "and written down")
    assert kept.kill()
