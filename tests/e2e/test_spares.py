"""The warm pool: what a create takes from it is as correct as what is started for it, and nothing of it shows."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from e2b import Sandbox

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until

FILLED_S = 120
"""Seconds; a machine that runs other tests beside this one starts sandboxes slowly."""
LEARNT = 2
"""Spares that the memory of the learning pool is enough for."""


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder = tmp_path_factory.mktemp("pooled")
    server = LocalServer(folder, pool="base/runsc=1,base/crun=1", pool_sandboxes=3, max_slots=8, pool_slots=2)
    with nothing_left(server), server:
        yield server


def pool(server: LocalServer) -> list[dict[str, Any]]:
    return json.loads(server.run("pool", "list", "--json").stdout)


def filled(server: LocalServer, kinds: int = 2) -> Callable[[], bool]:
    return lambda: len(levels := pool(server)) >= kinds and all(level["ready"] == level["wanted"] for level in levels)


def running(server: LocalServer) -> set[str]:
    return {path.name for path in Path("/run/warren", server.bridge, "sandboxes").iterdir()}


def test_a_spare_becomes_the_sandbox_that_was_asked_for(pooled: LocalServer, runtime: str) -> None:
    until(filled(pooled), FILLED_S, "the pool is full")
    assert not Sandbox.list(**pooled.options).next_items()
    spares = running(pooled)
    headers = {"X-Warren-Runtime": runtime}
    with Sandbox.create(
        envs={"OWN": "mine"}, metadata={"a": "b"}, timeout=120, api_headers=headers, **pooled.options
    ) as box:
        assert box.sandbox_id in spares
        assert box.commands.run("echo $OWN $E2B_SANDBOX_ID; hostname").stdout.split() == ["mine", *[box.sandbox_id] * 2]
        assert [info.sandbox_id for info in Sandbox.list(**pooled.options).next_items()] == [box.sandbox_id]
        assert box.get_info(**pooled.options).metadata == {"a": "b"}


def test_rules_hold_in_a_claimed_spare_before_its_first_command(pooled: LocalServer, runtime: str) -> None:
    until(filled(pooled), FILLED_S, "the pool is full")
    headers = {"X-Warren-Runtime": runtime}
    with Sandbox.create(allow_internet_access=False, timeout=120, api_headers=headers, **pooled.options) as box:
        rules = pooled.placement(box.sandbox_id)
        assert rules["deny"] == ["0.0.0.0/0"]


def test_a_stranger_finds_no_spare(pooled: LocalServer) -> None:
    until(filled(pooled), FILLED_S, "the pool is full")
    for spare in running(pooled):
        assert not Sandbox.kill(spare, **pooled.options)


def test_spares_of_a_crashed_server_are_cleared_and_made_anew(pooled: LocalServer) -> None:
    until(filled(pooled), FILLED_S, "the pool is full")
    before = running(pooled)
    pooled.kill()
    pooled.start()
    until(filled(pooled), FILLED_S, "the pool is full again")
    assert not before & running(pooled)


@pytest.fixture
def learning(tmp_path: Path) -> Iterator[LocalServer]:
    """Keeps nothing ahead unless it was asked for, and no more than fits into the memory for spares."""
    server = LocalServer(tmp_path / "learning", pool="", pool_sandboxes=8, pool_memory_mb=LEARNT * 1024, pool_slots=2)
    with nothing_left(server), server:
        yield server


def test_the_pool_keeps_what_was_asked_for_within_its_memory(learning: LocalServer, runtime: str) -> None:
    assert pool(learning) == []
    options: Any = {"timeout": 120, "api_headers": {"X-Warren-Runtime": runtime}, **learning.options}
    with ThreadPoolExecutor() as threads:
        asked = list(threads.map(lambda _: Sandbox.create(**options), range(LEARNT + 1)))  # as one burst
    try:
        until(filled(learning, kinds=1), FILLED_S, "it has learnt")
        (level,) = pool(learning)
        assert (level["runtime"], level["wanted"], level["ready"]) == (runtime, LEARNT, LEARNT)
        spares = running(learning) - {box.sandbox_id for box in asked}
        assert len(spares) == LEARNT
        asked.append(Sandbox.create(**options))
        assert asked[-1].sandbox_id in spares
        assert asked[-1].commands.run("hostname").stdout.strip() == asked[-1].sandbox_id
    finally:
        for box in asked:
            box.kill()
