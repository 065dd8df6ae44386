"""What the use cases do when store, engine and clock misbehave: nothing acknowledged is lost, nothing is forgotten."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.api_server import ApiServer, api_server
from tests.unit.waiting import eventually
from warren.control import clock as clock_module
from warren.control import supervision
from warren.control.identity import load_identity
from warren.model.errors import EngineFailed, NoSpace
from warren.model.sandbox import EndReason

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[ApiServer]:
    monkeypatch.setattr(supervision, "_SWEEP_PERIOD_S", 0.01)
    monkeypatch.setattr("warren.control.sandbox_end._RETRY_PAUSE_S", 0.001)
    async with api_server(tmp_path) as running:
        yield running


async def create(server: ApiServer, **fields: object) -> str:
    answer = await server.client.post("/v2/sandboxes", json={"templateID": "base", **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()["sandboxID"]


async def ended(server: ApiServer, sandbox: str) -> EndReason | None:
    row = await server.store.sandbox(server.project.id, sandbox)
    assert row is not None
    return row.end_reason


async def _full(*_: object) -> None:
    raise NoSpace


async def test_a_full_disk_is_told_by_its_own_status_and_words(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.store, "add_sandbox", _full)
    answer = await server.client.post("/v2/sandboxes", json={"templateID": "base"})
    assert (answer.status_code, answer.json()["error_code"]) == (507, "no_space")
    assert "free some space" in answer.json()["message"]


async def test_kill_works_on_a_full_disk_for_the_sandbox_may_be_what_fills_it(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox, filler = await create(server), await create(server)
    real = server.store.mark_killing

    async def mark_killing(sandbox_id: str, reason: EndReason, due_by: datetime | None = None) -> object:
        if filler in {placement.id for placement in await server.engine.list()}:
            raise NoSpace
        return await real(sandbox_id, reason, due_by)

    monkeypatch.setattr(server.store, "mark_killing", mark_killing)
    assert (await server.client.delete(f"/sandboxes/{filler}")).status_code == 204
    assert await ended(server, filler) is EndReason.KILLED
    assert (await server.client.get(f"/sandboxes/{sandbox}")).status_code == 200


@pytest.mark.threat("E5")
async def test_an_end_that_cannot_be_written_down_is_made_up_for(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await create(server)
    with monkeypatch.context() as broken:
        broken.setattr(server.store, "mark_gone", _full)
        broken.setattr(server.store, "mark_killing", _full)
        answer = await server.client.delete(f"/sandboxes/{sandbox}")
        assert answer.status_code == 507
        assert await server.engine.list() == []
    await eventually(lambda: _has_ended(server, sandbox, EndReason.KILLED))


async def test_a_death_that_cannot_be_written_down_is_made_up_for(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await create(server)
    with monkeypatch.context() as broken:
        broken.setattr(server.store, "mark_gone", _full)
        server.engine.kill_guest(sandbox)
        await eventually(lambda: _is_unrouted(server, sandbox))
    await eventually(lambda: _has_ended(server, sandbox, EndReason.DIED))


async def test_a_failed_start_that_cannot_be_written_down_is_made_up_for(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(server.store, "mark_running", _full)
        broken.setattr(server.store, "mark_gone", _full)
        answer = await server.client.post("/v2/sandboxes", json={"templateID": "base"})
        assert answer.status_code == 507
        (half,) = await server.store.live_sandboxes(load_identity(tmp_path).id)
    await eventually(lambda: _has_ended(server, half.id, EndReason.FAILED_TO_START))
    assert await server.engine.list() == []


async def test_a_runtime_that_refuses_to_delete_is_asked_again_and_the_reason_stays(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: str) -> None:
        raise EngineFailed("cannot remove it: not today")

    sandbox = await create(server)
    with monkeypatch.context() as broken:
        broken.setattr(server.engine, "destroy", refuse)
        await server.store.set_deadline(sandbox, datetime.now(UTC), False)
        await eventually(lambda: _is_unrouted(server, sandbox))
        assert (await server.client.get(f"/sandboxes/{sandbox}")).status_code == 404
    await eventually(lambda: _has_ended(server, sandbox, EndReason.EXPIRED))


@pytest.mark.threat("E5")
@pytest.mark.parametrize("hours", [-5, 5])
async def test_a_clock_that_jumps_neither_loses_nor_forgets_a_deadline(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Deadlines are instants of the wall clock: set back, they come later; set ahead, those it passed come at once."""
    near, far = await create(server, timeout=60), await create(server, timeout=12 * 3600)
    jumped = timedelta(hours=hours)

    class Jumped(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + jumped

    monkeypatch.setattr(clock_module, "datetime", Jumped)
    if hours > 0:
        await eventually(lambda: _has_ended(server, near, EndReason.EXPIRED))
    else:
        assert await ended(server, near) is None
        jumped = timedelta(seconds=61)  # the clock is set right, and time goes on
        await eventually(lambda: _has_ended(server, near, EndReason.EXPIRED))
    assert (await server.client.get(f"/sandboxes/{far}")).status_code == 200


async def test_the_end_of_all_ends_all_with_its_reason(server: ApiServer) -> None:
    sandboxes = [await create(server) for _ in range(3)]
    await server.control.supervision.end_all()
    assert [await ended(server, sandbox) for sandbox in sandboxes] == [EndReason.SERVER_STOPPED] * 3
    assert await server.engine.list() == []


async def _has_ended(server: ApiServer, sandbox: str, reason: EndReason) -> bool:
    return await ended(server, sandbox) is reason


async def _is_unrouted(server: ApiServer, sandbox: str) -> bool:
    return server.control.live.find(sandbox) is None
