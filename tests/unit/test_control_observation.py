"""Metrics come from the engine, logs from guest and server, each to its owner only."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_server import ApiServer, api_server
from warren.control.observation import metric_of
from warren.model.observation import Level, LogEntry, Usage

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def usage(cpu_seconds: float) -> Usage:
    return Usage(
        cpu_seconds=cpu_seconds,
        cpu_count=2,
        memory_used=1,
        memory_cache=2,
        memory_total=3,
        disk_used=4,
        disk_total=5,
    )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[ApiServer]:
    async with api_server(tmp_path) as running:
        yield running


async def create(server: ApiServer) -> str:
    answer = await server.client.post("/v2/sandboxes", json={"templateID": "base"})
    return answer.json()["sandboxID"]


def test_cpu_share_is_of_one_cpu_over_the_time_between_two_readings() -> None:
    before = (NOW - timedelta(seconds=5), usage(10.0))
    assert metric_of("i", NOW, usage(20.0), before).cpu_used_pct == 200.0


def test_the_first_reading_and_a_counter_that_went_back_have_no_share() -> None:
    assert metric_of("i", NOW, usage(20.0), None).cpu_used_pct == 0.0
    assert metric_of("i", NOW, usage(1.0), (NOW - timedelta(seconds=5), usage(2.0))).cpu_used_pct == 0.0


async def test_samples_are_listed_and_filtered_by_time(server: ApiServer) -> None:
    sandbox_id = await create(server)
    await server.store.add_metrics(
        [metric_of(sandbox_id, NOW + timedelta(seconds=n), usage(n), None) for n in range(4)]
    )
    start = int(NOW.timestamp()) + 1

    async def ask(**query: int) -> list[dict[str, Any]]:
        return (await server.client.get(f"/sandboxes/{sandbox_id}/metrics", params=query)).json()

    assert [one["timestampUnix"] - start for one in await ask()] == [-1, 0, 1, 2]
    assert [one["timestampUnix"] - start for one in await ask(start=start, end=start + 1)] == [0, 1]
    assert (await ask())[0]["memTotal"] == 3
    refused = await server.client.get(f"/sandboxes/{sandbox_id}/metrics", params={"start": 10, "end": 5})
    assert refused.status_code == 400


async def test_a_batch_names_only_own_sandboxes(server: ApiServer) -> None:
    sandbox_id = await create(server)
    await server.store.add_metrics([metric_of(sandbox_id, NOW, usage(1), None)])
    path = f"/sandboxes/metrics?sandbox_ids={sandbox_id},i{'0' * 20}"
    assert set((await server.client.get(path)).json()["sandboxes"]) == {sandbox_id}
    foreign = await server.other_project()
    assert (await server.client.get(path, headers=foreign)).json()["sandboxes"] == {}
    many = ",".join(["x"] * 101)
    assert (await server.client.get(f"/sandboxes/metrics?sandbox_ids={many}")).status_code == 400


async def test_logs_are_fetched_from_the_guest_when_asked_for_and_stay_after_the_end(server: ApiServer) -> None:
    sandbox_id = await create(server)
    route = server.control.live.find(sandbox_id)
    assert route is not None
    server.guest.entries[route.address] = [LogEntry(NOW, Level.WARN, "process", "hello", {"pid": "7"})]
    for _ in range(2):  # asking twice does not double them
        logs = (await server.client.get(f"/sandboxes/{sandbox_id}/logs")).json()
        assert [entry["message"] for entry in logs["logEntries"]] == ["hello"]
    assert '"logger": "process"' in logs["logs"][0]["line"]
    await server.client.delete(f"/sandboxes/{sandbox_id}")
    after = (await server.client.get(f"/v2/sandboxes/{sandbox_id}/logs")).json()["logs"]
    assert [entry["message"] for entry in after] == ["hello", "sandbox ended: killed"]


# --- the log over a pause ----------------------------------------------------------------------------------


def said(*messages: str) -> list[LogEntry]:
    """By a guest whose clock is behind: what counts is the order in its journal."""
    return [LogEntry(NOW, Level.INFO, "process", message) for message in messages]


async def messages(server: ApiServer, sandbox_id: str) -> list[str]:
    logs = (await server.client.get(f"/v2/sandboxes/{sandbox_id}/logs")).json()["logs"]
    return [entry["message"] for entry in logs if not entry["message"].startswith("sandbox ")]


async def test_what_a_guest_said_before_a_pause_is_there_while_it_sleeps(server: ApiServer) -> None:
    sandbox_id = await create(server)
    server.guest.entries["127.0.0.1"] = said("one")
    assert await messages(server, sandbox_id) == ["one"]
    server.guest.entries["127.0.0.1"] = said("one", "two")
    await server.client.post(f"/sandboxes/{sandbox_id}/pause", json={"memory": False})
    assert await messages(server, sandbox_id) == ["one", "two"]


@pytest.mark.parametrize("runtime", ["runsc", "crun"])
async def test_what_a_guest_says_between_pause_and_wake_is_not_lost(server: ApiServer, runtime: str) -> None:
    answer = await server.client.post("/v2/sandboxes", json={"templateID": "base", "runtime": runtime})
    sandbox_id = answer.json()["sandboxID"]
    server.guest.entries["127.0.0.1"] = said("one")
    assert await messages(server, sandbox_id) == ["one"]
    await server.client.post(f"/sandboxes/{sandbox_id}/pause", json={})
    await server.control.observations._sample_all()  # pyright: ignore[reportPrivateUsage]  # a round while it sleeps
    server.guest.entries["127.0.0.1"] = said("one", "as it fell asleep", "as it woke")
    await server.client.post(f"/sandboxes/{sandbox_id}/connect", json={"timeout": 60})
    assert await messages(server, sandbox_id) == ["one", "as it fell asleep", "as it woke"]


async def test_a_boot_from_files_begins_a_journal_that_is_read_from_its_start(server: ApiServer) -> None:
    sandbox_id = await create(server)
    server.guest.entries["127.0.0.1"] = said("one", "two")
    await server.client.post(f"/sandboxes/{sandbox_id}/pause", json={})
    server.guest.entries["127.0.0.1"] = said("booted")
    await server.client.post(f"/v2/sandboxes/{sandbox_id}/connect", json={"timeout": 60, "memory": False})
    assert await messages(server, sandbox_id) == ["one", "two", "booted"]


async def test_how_far_a_log_was_read_is_forgotten_with_the_sandbox(server: ApiServer) -> None:
    sandbox_id = await create(server)
    await messages(server, sandbox_id)
    await server.client.delete(f"/sandboxes/{sandbox_id}")
    await server.control.observations._sample_all()  # pyright: ignore[reportPrivateUsage]
    assert not server.control.observations._journals._seen  # pyright: ignore[reportPrivateUsage]
