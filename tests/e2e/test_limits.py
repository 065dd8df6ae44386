"""What happens at the edge of what a project or a machine may have."""

import json
import os
import sqlite3
import time
from collections.abc import Iterator

import httpx
import pytest
from e2b import RateLimitException, Sandbox, SandboxException, ServiceBusyException

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer

PROJECT_LIMIT, MACHINE_LIMIT = 1, 2


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A machine with room for two sandboxes, on the fast runtime: limits do not depend on it."""
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    local = LocalServer(tmp_path_factory.mktemp("small"), runtime="crun", max_slots=MACHINE_LIMIT, pool_slots=1)
    with nothing_left(local), local:
        yield local


def post(server: LocalServer, **body: object) -> httpx.Response:
    body = {"templateID": "base", "timeout": 60, **body}
    return httpx.post(f"{server.api_url}/v2/sandboxes", json=body, headers={"X-API-KEY": server.api_key}, timeout=60)


@pytest.mark.covers("C06", "C07")
def test_a_full_machine_is_busy_and_says_so_at_once(small: LocalServer) -> None:
    made = [Sandbox.create(timeout=60, **small.options) for _ in range(MACHINE_LIMIT)]
    refused = post(small)
    assert (refused.status_code, refused.json()["code"]) == (503, 503)
    assert refused.json()["error_code"] == "sandbox_capacity_unavailable"
    assert refused.headers["should-retry"] == "false"
    with pytest.raises(ServiceBusyException):
        Sandbox.create(**small.options)
    made.pop().kill()
    made.append(Sandbox.create(timeout=60, **small.options))
    for sandbox in made:
        assert sandbox.kill()


def test_a_machine_whose_memory_is_promised_says_so(small: LocalServer) -> None:
    kept = Sandbox.create(timeout=60, **small.options)
    room = json.loads(small.run("info", "--json").stdout)["machine"]
    assert room["memoryMB"]["committed"] >= 1024
    assert 0 < room["memoryMB"]["available"] < room["memoryMB"]["total"] < room["memoryMB"]["limit"]
    assert "memory committed" in small.run("info").stdout
    small.stop()
    small.settings["WARREN_MEMORY_OVERCOMMIT"] = "0"
    try:
        small.start()
        refused = post(small)
        assert (refused.status_code, refused.json()["error_code"]) == (503, "sandbox_capacity_unavailable")
        assert "WARREN_MEMORY_OVERCOMMIT" in refused.json()["message"]
        assert refused.headers["should-retry"] == "false"
        assert kept.commands.run("echo on").stdout == "on\n"
    finally:
        small.stop()
        del small.settings["WARREN_MEMORY_OVERCOMMIT"]
        small.start()
    assert kept.kill()


@pytest.mark.covers("C06", "C07")
def test_the_projects_limit_is_named_and_not_retried(small: LocalServer) -> None:
    set_project_limits(small, sandboxes=PROJECT_LIMIT)
    first = Sandbox.create(timeout=60, **small.options)
    refused = post(small)
    assert (refused.status_code, refused.json()["code"]) == (429, 429)
    assert f"limit of {PROJECT_LIMIT} sandboxes" in refused.json()["message"]
    assert refused.headers["should-retry"] == "false"
    with pytest.raises(RateLimitException):
        Sandbox.create(**small.options)
    assert first.kill()
    assert Sandbox.create(timeout=60, **small.options).kill()


@pytest.mark.covers("C07")
@pytest.mark.parametrize(("field", "value"), [("cpuCount", 1000), ("memoryMB", 10**6), ("diskMB", 10**7)])
def test_sizes_above_the_projects_limits_are_refused_by_name(small: LocalServer, field: str, value: int) -> None:
    refused = post(small, **{field: value})
    assert refused.status_code == 400
    assert field in refused.json()["message"]


def test_sizes_asked_for_are_sizes_given(small: LocalServer) -> None:
    created = post(small, cpuCount=1, memoryMB=256, diskMB=128)
    assert created.status_code == 201, created.text
    sandbox = Sandbox.connect(created.json()["sandboxID"], **small.options)
    info = sandbox.get_info()
    assert (info.cpu_count, info.memory_mb) == (1, 256)
    memory = int(sandbox.commands.run("free -m | awk '/^Mem:/ {print $2}'").stdout)
    assert 230 <= memory <= 256
    disk = int(sandbox.commands.run("df -m --output=size / | tail -n 1").stdout)
    assert 100 <= disk <= 128
    assert sandbox.kill()


@pytest.mark.covers("C07")
def test_an_unknown_runtime_is_refused_with_the_known_ones(small: LocalServer) -> None:
    with pytest.raises(SandboxException, match="crun") as failure:
        Sandbox.create(api_headers={"X-Warren-Runtime": "qemu"}, **small.options)
    assert failure.value.status_code == 400


def set_project_limits(server: LocalServer, **limits: int) -> None:
    """The command for it wants the server stopped, but the server reads the row with every request."""
    deadline = time.monotonic() + 10
    while True:
        try:
            with sqlite3.connect(server.state / "warren.db", timeout=10) as database:
                for name, value in limits.items():
                    database.execute(f"UPDATE projects SET max_{name} = ?", (value,))
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
