"""Metrics and logs."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from e2b import AsyncSandbox, Sandbox, SandboxMetrics, SandboxNotFoundException

from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until

FIRST_SAMPLE_S = 30
"""Seconds within which the contract promises the first sample."""


def samples(sandbox: Sandbox) -> list[SandboxMetrics]:
    return until(sandbox.get_metrics, FIRST_SAMPLE_S, "a first sample")


@pytest.mark.covers("S13")
def test_a_sample_tells_what_the_sandbox_has_and_uses(box: Sandbox) -> None:
    sample = samples(box)[-1]
    assert sample.cpu_count == 2
    assert sample.cpu_used_pct >= 0
    assert 0 < sample.mem_used <= sample.mem_total
    assert sample.mem_total == 1024 * 1024 * 1024
    assert 0 <= sample.disk_used <= sample.disk_total
    assert sample.disk_total == pytest.approx(2 * 1024**3, rel=0.1)


@pytest.mark.covers("S13")
def test_start_and_end_bound_the_samples(box: Sandbox) -> None:
    samples(box)
    now = datetime.now(UTC)
    assert box.get_metrics(start=now - timedelta(minutes=10), end=now + timedelta(minutes=1))
    assert box.get_metrics(start=now - timedelta(days=2), end=now - timedelta(days=1)) == []


@pytest.mark.anyio
@pytest.mark.covers("S13")
async def test_the_async_client_reads_metrics(box: Sandbox) -> None:
    samples(box)
    assert await (await AsyncSandbox.connect(box.sandbox_id)).get_metrics()


@pytest.mark.covers("S13", "C07")
@pytest.mark.usefixtures("server")
def test_metrics_of_nothing_are_not_found() -> None:
    with pytest.raises(SandboxNotFoundException):
        Sandbox.get_metrics("i" + "0" * 20)


@pytest.mark.covers("S14")
def test_logs_tell_what_ran_and_how_it_ended(box: Sandbox, server: LocalServer) -> None:
    box.commands.run("true # a-mark-to-look-for")

    def entries() -> str:
        shown = server.run("sandbox", "logs", box.sandbox_id)
        assert shown.returncode == 0, shown.stderr
        return shown.stdout if "a-mark-to-look-for" in shown.stdout else ""

    until(entries, 30, "the command is in the log")


@pytest.mark.covers("S14")
@pytest.mark.threat("D4")
def test_logs_never_hold_values_of_the_environment(create: Callable[..., Sandbox], server: LocalServer) -> None:
    sandbox = create(envs={"SECRET": "hunter2-sandbox"})
    sandbox.commands.run("true # find-me", envs={"SECRET": "hunter2-command"})

    def shown() -> str:
        text = server.run("sandbox", "logs", sandbox.sandbox_id, "--json").stdout
        return text if "find-me" in text else ""

    text = until(shown, 30, "the command is in the log")
    assert "hunter2" not in text
    assert json.dumps("hunter2") not in server.log.read_text()
