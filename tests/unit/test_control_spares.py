"""The warm pool over the in-memory engine, guest and store."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit import build_rig
from tests.unit.api_server import BASE, ApiServer, api_server
from tests.unit.waiting import eventually
from warren.engine.fake.engine import FakeEngine
from warren.model import limits
from warren.model.errors import EngineFailed
from warren.model.room import Machine

pytestmark = pytest.mark.anyio
NEW = {"templateID": "base", "timeout": 60}


@pytest.fixture(autouse=True)
def no_rush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "POOL_QUIET_S", 0.01)


@asynccontextmanager
async def pooled(state: Path, **settings: object) -> AsyncIterator[ApiServer]:
    async with api_server(state, pool_sandboxes=4, **settings) as server:
        spares = server.control.spares
        server.work.spawn(spares.run(lambda: server.control.starting.is_idle), "pool")
        yield server
        await spares.drain()


async def filled(server: ApiServer, count: int = 2) -> None:
    async def is_full() -> bool:
        return ready(server) == count

    await eventually(is_full)


def ready(server: ApiServer) -> int:
    return sum(level.ready for level in server.control.spares.levels())


async def test_a_create_takes_a_spare_and_the_pool_fills_up_again(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        spares = set(server.engine.machine.sandboxes)
        created = await server.client.post("/v2/sandboxes", json=NEW | {"envVars": {"A": "b"}})
        assert created.status_code == 201
        assert created.json()["sandboxID"] in spares
        assert server.guest.identities[created.json()["sandboxID"]].envs == {"A": "b"}
        await filled(server)


async def test_a_spare_is_started_in_the_background_and_handed_out_like_any_other(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        for sandbox in server.engine.machine.sandboxes.values():
            assert (sandbox.spec.in_background, sandbox.in_background) == (True, False)
        created = await server.client.post("/v2/sandboxes", json=NEW | {"memoryMB": 256})
        assert not server.engine.machine.sandboxes[created.json()["sandboxID"]].spec.in_background


async def test_no_list_and_no_quota_knows_of_spares(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        assert server.audit.events == []
        assert (await server.client.get("/v2/sandboxes")).json() == []
        some = next(iter(server.engine.machine.sandboxes))
        assert (await server.client.get(f"/sandboxes/{some}")).status_code == 404
        assert (await server.client.delete(f"/sandboxes/{some}")).status_code == 404
        listed = await server.client.get("/v2/sandboxes")
        assert listed.headers["x-total-running"] == "0"
        measured = (await server.client.get("/sandboxes/metrics", params={"sandbox_ids": some})).json()
        assert measured == {"sandboxes": {}}
        numbers = (await server.client.get("/metrics")).text
        assert not re.search(r"warren_(sandboxes_running|creates|ends)\S* [1-9]", numbers)
        assert (await server.client.get("/machine")).json()["spares"] == 2
        (shown,) = (await server.client.get("/pools")).json()
        assert (shown["names"], shown["runtime"], shown["ready"], shown["wanted"]) == (["base"], "runsc", 2, 2)
        headers = await server.other_project(sandboxes=1)
        assert (await server.client.post("/v2/sandboxes", json=NEW, headers=headers)).status_code == 201


async def test_a_build_with_the_image_of_another_has_spares_of_its_own(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        spares = set(server.engine.machine.sandboxes)
        await server.store.put_template(replace(BASE, build_id="0d3c2a34-4b6e-4f63-9c30-222222222222"))
        created = await server.client.post("/v2/sandboxes", json=NEW)
        assert created.json()["sandboxID"] not in spares


async def test_rules_of_the_owner_are_set_before_he_gets_it(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        created = await server.client.post("/v2/sandboxes", json=NEW | {"allow_internet_access": False})
        assert server.engine.egress(created.json()["sandboxID"]).deny


async def test_other_sizes_and_runtimes_miss_and_are_learnt(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        spares = set(server.engine.machine.sandboxes)
        created = await server.client.post("/v2/sandboxes", json=NEW | {"memoryMB": 256})
        assert created.json()["sandboxID"] not in spares

        async def is_learnt() -> bool:
            found = server.control.spares.levels()
            return any(level.kind.resources.memory_mb == 256 and level.ready for level in found)

        await eventually(is_learnt)


async def test_a_dead_spare_is_replaced(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        dead = next(iter(server.engine.machine.sandboxes))
        server.engine.kill_guest(dead)

        async def is_replaced() -> bool:
            return dead not in server.engine.machine.sandboxes and ready(server) == 2

        await eventually(is_replaced)


async def test_a_spare_that_does_not_answer_costs_the_caller_nothing(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        spares = set(server.engine.machine.sandboxes)
        server.guest.deaf_once |= spares
        created = await server.client.post("/v2/sandboxes", json=NEW)
        assert created.status_code == 201
        assert created.json()["sandboxID"] in server.engine.machine.sandboxes


async def test_a_refused_create_gives_the_spare_back(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        headers = await server.other_project(sandboxes=0)
        before = set(server.engine.machine.sandboxes)
        assert (await server.client.post("/v2/sandboxes", json=NEW, headers=headers)).status_code == 429
        assert before <= set(server.engine.machine.sandboxes)


async def test_the_last_place_goes_to_who_asks(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        server.engine.machine.slots = 2
        created = await server.client.post("/v2/sandboxes", json=NEW | {"memoryMB": 256})
        assert created.status_code == 201


async def test_a_large_sandbox_takes_the_room_of_as_many_spares_as_it_needs(tmp_path: Path) -> None:
    async with pooled(tmp_path, pool=("base=4",)) as server:
        await filled(server, 4)
        size = server.engine.machine.size
        committed = (await server.engine.room()).memory_committed
        server.engine.machine.size = replace(size, memory_total=committed // 10)
        large = await server.client.post("/v2/sandboxes", json=NEW | {"memoryMB": committed // 4 * 3})
        assert large.status_code == 201
        too_large = await server.client.post("/v2/sandboxes", json=NEW | {"memoryMB": committed})
        assert (too_large.status_code, too_large.json()["error_code"]) == (503, "sandbox_capacity_unavailable")


async def test_a_sandbox_that_wakes_takes_the_place_of_a_spare(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        sandbox = (await server.client.post("/v2/sandboxes", json=NEW)).json()["sandboxID"]
        assert (await server.client.post(f"/sandboxes/{sandbox}/pause", json={})).status_code == 204
        await filled(server)
        server.engine.machine.slots = 2
        assert (await server.client.post(f"/v2/sandboxes/{sandbox}/connect", json={"timeout": 60})).status_code == 201
        assert sandbox in server.engine.machine.sandboxes


async def test_a_copy_takes_the_place_of_a_spare(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        sandbox = (await server.client.post("/v2/sandboxes", json=NEW)).json()["sandboxID"]
        await filled(server)
        server.engine.machine.slots = 3
        (copy,) = (await server.client.post(f"/sandboxes/{sandbox}/fork", json={})).json()
        assert copy["sandbox"]["sandboxID"] in server.engine.machine.sandboxes


async def test_a_build_takes_the_place_of_a_spare(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    async with pooled(tmp_path) as server:
        await filled(server)
        server.engine.machine.slots = 2
        made = await build_rig.request(server)
        await build_rig.start(server, made, fromImage=None, fromTemplate="base", steps=[{"type": "RUN", "args": ["a"]}])
        assert (await build_rig.ended(server, made))["status"] == "ready"


async def test_a_kind_that_does_not_start_holds_up_no_other(tmp_path: Path) -> None:
    async with pooled(tmp_path, pool=("base/unknown=2", "base=1")) as server:
        await filled(server, 1)


async def test_nothing_is_kept_while_memory_is_short(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        size = server.engine.machine.size
        server.engine.machine.size = replace(size, memory_available=limits.POOL_MEMORY_RESERVE_MB - 1)

        async def is_drained() -> bool:
            return not server.engine.machine.sandboxes

        await eventually(is_drained)
        assert (await server.client.post("/v2/sandboxes", json=NEW)).status_code == 201


async def test_a_server_that_stops_leaves_no_spare(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        machine = server.engine.machine
    assert not machine.sandboxes


async def test_a_place_that_a_spare_is_just_taking_goes_to_who_asks(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        server.engine.machine.slots = 2
        first = await server.client.post("/v2/sandboxes", json=NEW)
        second = await server.client.post("/v2/sandboxes", json=NEW)
        server.guest.up.clear()
        server.engine.machine.slots = 3

        async def is_starting() -> bool:
            return len(server.engine.machine.sandboxes) == 3

        await eventually(is_starting)
        asking = asyncio.create_task(server.client.post("/v2/sandboxes", json=NEW | {"memoryMB": 256}))
        await asyncio.sleep(0)
        server.guest.up.set()
        assert [first.status_code, second.status_code, (await asking).status_code] == [201, 201, 201]


@pytest.fixture
def stubborn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is destroyed at the first attempt."""
    monkeypatch.setattr(limits, "POOL_PERIOD_S", 0.01)
    destroy, tried = FakeEngine.destroy, set[str]()

    async def attempt(engine: FakeEngine, sandbox_id: str) -> None:
        if sandbox_id not in tried:
            tried.add(sandbox_id)
            raise EngineFailed(f"cannot remove {sandbox_id}: not today")
        await destroy(engine, sandbox_id)

    monkeypatch.setattr(FakeEngine, "destroy", attempt)


def shrink_memory(server: ApiServer) -> Machine:
    """Too little is free for any spare; the machine as it was."""
    size = server.engine.machine.size
    server.engine.machine.size = replace(size, memory_available=limits.POOL_MEMORY_RESERVE_MB - 1)
    return size


@pytest.mark.usefixtures("stubborn")
async def test_a_spare_that_does_not_go_is_tried_again(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        shrink_memory(server)

        async def are_gone() -> bool:
            return not server.engine.machine.sandboxes

        await eventually(are_gone)


@pytest.mark.usefixtures("stubborn")
async def test_a_spare_that_does_not_start_and_does_not_go_is_tried_again(tmp_path: Path) -> None:
    async with pooled(tmp_path, pool=("base=1",)) as server:
        server.guest.silent = True
        ids = set[str]()

        async def has_gone() -> bool:
            ids.update(server.engine.machine.sandboxes)
            return bool(ids) and not server.engine.machine.sandboxes

        await eventually(has_gone)


@pytest.mark.usefixtures("stubborn")
async def test_a_spare_that_does_not_make_room_at_once_does_so_later(tmp_path: Path) -> None:
    async with pooled(tmp_path) as server:
        await filled(server)
        spares = set(server.engine.machine.sandboxes)
        server.engine.machine.slots = 2

        async def is_made() -> bool:
            return (await server.client.post("/v2/sandboxes", json=NEW | {"memoryMB": 256})).status_code == 201

        async def are_gone() -> bool:
            return not spares & set(server.engine.machine.sandboxes)

        await eventually(is_made)
        await eventually(are_gone)


async def test_what_is_asked_for_while_spares_are_destroyed_is_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "POOL_PERIOD_S", 0.01)
    async with pooled(tmp_path) as server:
        await filled(server)
        spares, may_go, destroy = set(server.engine.machine.sandboxes), asyncio.Event(), server.engine.destroy

        async def held_up(sandbox_id: str) -> None:
            spares.discard(sandbox_id)
            await may_go.wait()
            await destroy(sandbox_id)

        monkeypatch.setattr(server.engine, "destroy", held_up)
        size, count = shrink_memory(server), len(spares)

        async def are_going() -> bool:
            return len(spares) < count

        await eventually(are_going)
        assert (await server.client.post("/v2/sandboxes", json=NEW | {"memoryMB": 256})).status_code == 201
        server.engine.machine.size = size
        may_go.set()

        async def is_learnt() -> bool:
            levels = server.control.spares.levels()
            return any(level.kind.resources.memory_mb == 256 and level.ready for level in levels)

        await eventually(is_learnt)
