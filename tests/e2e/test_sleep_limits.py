"""What sleep may take, and what is checked again at each wake: limits and keys as they are by then."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2b import AuthenticationException, RateLimitException, Sandbox, SandboxException, SandboxInfo, SandboxState

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from tests.e2e.test_faults_server import ServerWithClock
from tests.e2e.test_limits import set_project_limits
from tests.e2e.test_sleep import through_gateway
from tests.e2e.waiting import until
from warren.model.project import ProjectLimits

LONG_S, DAY_S = 60.0, 86_400
WOKEN: Any = {"on_timeout": "pause", "auto_resume": True}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerWithClock]:
    """Under gVisor, whose sandboxes sleep on the disk."""
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    server = ServerWithClock(tmp_path_factory.mktemp("own"), runtime="runsc", pool_slots=2, max_slots=8)
    server.set_clock(0)
    with nothing_left(server), server:
        yield server
        for info in Sandbox.list(**server.options).next_items():
            Sandbox.kill(info.sandbox_id, **server.options)


@contextmanager
def limited(server: LocalServer, **limits: int) -> Iterator[None]:
    set_project_limits(server, **limits)
    try:
        yield
    finally:
        usual = asdict(ProjectLimits())
        set_project_limits(server, **{name: usual[name] for name in limits})


def asleep(server: LocalServer, **options: Any) -> tuple[Sandbox, int]:
    """A sandbox that traffic may wake, and the pid of a process that has to be there then."""
    sandbox = Sandbox.create(lifecycle=WOKEN, **{"timeout": 600, **options}, **server.options)
    pid = sandbox.commands.run("exec sleep 1000", background=True, timeout=0).pid
    assert sandbox.pause() is True
    return sandbox, pid


def visit(server: LocalServer, sandbox: Sandbox) -> tuple[int, str]:
    """What somebody gets who wakes it by a request to a port where nothing listens."""
    answer = through_gateway(server, sandbox, 8000)
    return answer.status_code, answer.json()["message"]


def info_of(server: LocalServer, sandbox: Sandbox) -> SandboxInfo:
    return Sandbox.get_info(sandbox.sandbox_id, **server.options)


def usage(server: LocalServer) -> dict[str, int]:
    answer = httpx.get(f"{server.api_url}/teams", headers={"X-API-KEY": server.api_key}, timeout=30)
    return answer.json()[0]["snapshotUsage"]


def checkpoints(server: LocalServer) -> list[Path]:
    return list((server.state / "engine" / "checkpoints").iterdir())


@pytest.mark.covers("S07", "S17")
@pytest.mark.threat("D2")
def test_limits_that_were_lowered_and_keys_that_were_revoked_meanwhile_hold(own: ServerWithClock) -> None:
    sandbox, pid = asleep(own)
    with limited(own, memory_mb=256):
        with pytest.raises(SandboxException, match="memoryMB") as refused:
            sandbox.connect()
        assert refused.value.status_code == 403
        status, message = visit(own, sandbox)
        assert (status, "memoryMB" in message) == (403, True)
    with limited(own, sandboxes=1), Sandbox.create(timeout=60, **own.options):
        with pytest.raises(RateLimitException):
            sandbox.connect()
        status, message = visit(own, sandbox)
        assert (status, "limit of 1 sandboxes" in message) == (429, True)
    with httpx.Client(base_url=own.api_url, headers={"X-API-KEY": own.api_key}) as client:
        for key in client.get("/api-keys").json():
            assert client.delete(f"/api-keys/{key['id']}").status_code == 204
    with pytest.raises(AuthenticationException):
        sandbox.connect()
    status, message = visit(own, sandbox)
    assert (status, "no key of its project" in message) == (403, True)
    own.stop()
    own.start()  # makes a key where there is none in force
    assert info_of(own, sandbox).state is SandboxState.PAUSED
    with limited(own, lifetime_s=100):  # below what a wake by traffic gives at least
        status, message = visit(own, sandbox)
        assert (status, "port is not open" in message) == (502, True), "awake, and nothing listens"
        left = info_of(own, sandbox).end_at - datetime.now(UTC)
    assert 20 < left.total_seconds() <= 100
    assert pid in {process.pid for process in sandbox.commands.list()}
    assert Sandbox.kill(sandbox.sandbox_id, **own.options) is True


def test_disk_that_sleep_takes_is_shown_limited_and_given_back(own: ServerWithClock) -> None:
    nothing = usage(own)
    assert (nothing["pausedSandboxes"], nothing["pausedBytes"], nothing["snapshotBytes"]) == (0, 0, 0)
    running = Sandbox.create(timeout=600, **own.options)
    snapshot = running.create_snapshot()
    sandbox, _ = asleep(own)
    taken = usage(own)
    assert (taken["pausedSandboxes"], taken["snapshots"], taken["limitBytes"]) == (1, 1, 51_200 << 20)
    on_disk = sum(path.stat().st_blocks * 512 for each in checkpoints(own) for path in each.rglob("*"))
    assert 0.5 < (taken["pausedBytes"] + taken["snapshotBytes"]) / on_disk < 2
    assert "1 paused on disk, 1 snapshots" in own.run("info").stdout
    with limited(own, snapshot_mb=1):
        for refused in (running.pause, running.create_snapshot):
            with pytest.raises(RateLimitException, match="snapshot_mb"):
                refused()
        assert running.commands.run("echo it runs on").exit_code == 0
    assert Sandbox.delete_snapshot(snapshot.snapshot_id, **own.options) is True
    assert sandbox.kill() is True
    assert running.kill() is True
    assert (usage(own), checkpoints(own)) == (nothing, [])


def test_what_sleeps_for_too_long_ends_and_leaves_nothing_on_the_disk(own: ServerWithClock) -> None:
    sandbox, _ = asleep(own)
    with limited(own, paused_days=2):
        own.set_clock(3 * DAY_S)
        until(lambda: checkpoints(own) == [], LONG_S, "its checkpoint is gone")
    answer = httpx.get(
        f"{own.api_url}/v2/sandboxes/{sandbox.sandbox_id}/logs", headers={"X-API-KEY": own.api_key}, timeout=30
    )
    assert "sandbox ended: paused_too_long" in [entry["message"] for entry in answer.json()["logs"]]
    assert Sandbox.kill(sandbox.sandbox_id, **own.options) is False
