"""Templates with services: up when a create answers, from memory where there is some, else after a boot."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_server import BASE, ApiServer, api_server
from tests.unit.waiting import eventually
from warren.contracts.engine import Placement, SandboxSpec
from warren.contracts.guest import Exit, GuestCommand, OnLine
from warren.model import limits
from warren.model.sandbox import Resources
from warren.model.snapshot import SnapshotKind
from warren.model.template import Template

pytestmark = pytest.mark.anyio

SERVED = replace(BASE, id="tserved", names=("served",), start_command="serve", ready_command="is it up")
NEW = {"templateID": "served", "timeout": 60}


async def serve(_: GuestCommand, __: OnLine) -> Exit:
    await asyncio.Event().wait()
    return Exit(0)


async def is_it_up(_: GuestCommand, __: OnLine) -> Exit:
    await asyncio.sleep(0)
    return Exit(0)


@asynccontextmanager
async def serving(state: Path, **settings: Any) -> AsyncIterator[ApiServer]:
    async with api_server(state, **settings) as server:
        await server.store.put_template(SERVED)
        server.workshop.programs |= {"serve": serve, "is it up": is_it_up}
        yield server


def ups(server: ApiServer) -> int:
    """How often services were brought up; each time they were asked whether they are."""
    assert server.workshop.done.count("run serve") == server.workshop.done.count("run is it up")
    return server.workshop.done.count("run serve")


async def create(server: ApiServer, expected: int = 201, **fields: Any) -> Any:
    answer = await server.client.post("/v2/sandboxes", json=NEW | fields)
    assert answer.status_code == expected, answer.text
    return answer.json()


async def prime(server: ApiServer, template: Template = SERVED) -> None:
    memory = server.control.memory
    assert memory is not None
    await memory.take([BASE, template])


def restored(server: ApiServer, created: Any) -> SnapshotKind | None:
    restore = server.engine.machine.sandboxes[created["sandboxID"]].spec.restore
    return None if restore is None else restore.kind


async def test_services_are_up_after_a_boot(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        created = await create(server)
        assert ups(server) == 1
        assert restored(server, created) is None


async def test_a_template_without_services_runs_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await create(server, templateID="base")
        assert not server.workshop.done


async def test_services_that_do_not_come_up_fail_the_create_and_leave_nothing(tmp_path: Path) -> None:
    async def fails(_: GuestCommand, __: OnLine) -> Exit:
        return Exit(3)

    async def never(_: GuestCommand, __: OnLine) -> Exit:
        return Exit(1)

    async with serving(tmp_path) as server:
        server.workshop.programs |= {"serve": fails, "is it up": never}
        answer = await create(server, expected=500)
        assert "failed to run start command 'serve': exit status 3" in answer["message"]
        assert not server.engine.machine.sandboxes


async def test_memory_is_taken_once_and_sandboxes_start_from_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await prime(server)
        await prime(server)
        assert ups(server) == 1
        assert not server.engine.machine.sandboxes
        created = await create(server, envVars={"A": "b"})
        assert restored(server, created) is SnapshotKind.MEMORY
        assert ups(server) == 1
        identity = server.guest.identities[created["sandboxID"]]
        assert identity.is_copy
        assert identity.authority not in (None, identity.control_token)
        assert identity.envs == {"A": "b"}


async def test_memory_outlives_the_server_and_the_sweep(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await prime(server)
        await server.control.supervision.sweep()
        assert len(await server.engine.checkpoints()) == 1
        assert restored(server, await create(server)) is SnapshotKind.MEMORY


@pytest.mark.parametrize("fields", [{"memoryMB": 256}, {}])
async def test_other_sizes_and_runtimes_boot(tmp_path: Path, fields: dict[str, int]) -> None:
    async with serving(tmp_path) as server:
        await prime(server)
        headers = {} if fields else {"X-Warren-Runtime": "crun"}
        answer = await server.client.post("/v2/sandboxes", json=NEW | fields, headers=headers)
        assert restored(server, answer.json()) is None
        assert ups(server) == 2


async def test_memory_of_another_build_is_not_used(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await prime(server)
        await server.store.put_template(replace(SERVED, digest="sha256:" + "1" * 64))
        assert restored(server, await create(server)) is None


@pytest.mark.parametrize(
    "changes",
    [{"start_command": None, "ready_command": None}, {"resources": Resources(memory_mb=2048)}, {"envs": {"A": "1"}}],
)
async def test_memory_is_not_used_by_another_template_of_the_same_image(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    async with serving(tmp_path) as server:
        await prime(server)
        derived = replace(SERVED, id="tderived", names=("derived",), **changes)
        await server.store.put_template(derived)
        assert restored(server, await create(server, templateID="derived")) is None
        assert restored(server, await create(server)) is SnapshotKind.MEMORY


async def test_memory_that_is_gone_is_done_without_and_taken_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await prime(server)
        await create(server)
        (checkpoint,) = await server.engine.checkpoints()
        await server.engine.forget(checkpoint.id)
        assert restored(server, await create(server)) is None
        await prime(server)
        assert restored(server, await create(server)) is SnapshotKind.MEMORY


async def test_a_spare_has_its_services_up(tmp_path: Path) -> None:
    async with serving(tmp_path, pool_sandboxes=1, pool=("served=1",)) as server:
        server.work.spawn(server.control.spares.run(lambda: True), "pool")

        async def is_full() -> bool:
            return sum(level.ready for level in server.control.spares.levels()) == 1

        await eventually(is_full)
        assert ups(server) == 1
        await create(server)
        await server.control.spares.drain()


async def test_services_are_up_again_after_a_pause_of_files_and_in_copies_of_them(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        headers = {"X-Warren-Runtime": "crun"}
        created = (await server.client.post("/v2/sandboxes", json=NEW, headers=headers)).json()
        name = created["sandboxID"]
        await server.client.post(f"/sandboxes/{name}/pause", json={"memory": False})
        await server.client.post(f"/sandboxes/{name}/connect", json={"timeout": 60})
        assert ups(server) == 2
        await server.client.post(f"/sandboxes/{name}/fork", json={"count": 1})
        assert ups(server) == 3
        snapshot = (await server.client.post(f"/sandboxes/{name}/snapshots", json={"memory": False})).json()
        await create(server, templateID=snapshot["snapshotID"])
        assert ups(server) == 4


async def test_services_are_up_after_boots_of_copies_of_copies(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:

        async def post(sandbox: str, verb: str, **body: Any) -> Any:
            answer = await server.client.post(f"/sandboxes/{sandbox}/{verb}", json=body)
            assert answer.is_success, answer.text
            return answer.json() if answer.content else None

        name = (await create(server))["sandboxID"]
        for generation in (1, 2):
            snapshot = (await post(name, "snapshots", memory=True))["snapshotID"]
            created = await create(server, templateID=snapshot)
            assert snapshot == f"{created['templateID']}:default"
            name = created["sandboxID"]
            assert ups(server) == 2 * generation - 1
            await post(name, "pause", memory=False)
            await post(name, "connect", timeout=60)
            assert ups(server) == 2 * generation
            files = (await post(name, "snapshots", memory=False))["snapshotID"]
            await create(server, templateID=files)
            assert ups(server) == 2 * generation + 1


async def test_a_fork_of_a_copy_that_boots_has_its_services_up(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        headers = {"X-Warren-Runtime": "crun"}
        created = (await server.client.post("/v2/sandboxes", json=NEW, headers=headers)).json()
        taken = await server.client.post(f"/sandboxes/{created['sandboxID']}/snapshots", json={})
        copy = (await create(server, templateID=taken.json()["snapshotID"]))["sandboxID"]
        (forked,) = (await server.client.post(f"/sandboxes/{copy}/fork", json={"count": 1})).json()
        assert ups(server) == 3
        await server.client.post(f"/sandboxes/{forked['sandbox']['sandboxID']}/fork", json={"count": 1})
        assert ups(server) == 4


async def test_memory_that_is_read_for_long_has_its_time_and_no_boot_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CREATES_BESIDE", 1 - (os.cpu_count() or 1))
    async with serving(tmp_path) as server:
        await prime(server)
        real, reading, go_on = server.engine.create, asyncio.Event(), asyncio.Event()

        async def slow(spec: SandboxSpec) -> Placement:
            if spec.restore is not None:
                reading.set()
                await go_on.wait()
            return await real(spec)

        monkeypatch.setattr(server.engine, "create", slow)
        monkeypatch.setattr(limits, "CREATE_DEADLINE_S", 0.2)
        large = asyncio.create_task(create(server))
        await reading.wait()
        monkeypatch.setattr(limits, "CREATE_DEADLINE_S", 5.0)
        await create(server, templateID="base", memoryMB=256)
        await asyncio.sleep(0.25)
        assert not large.done()
        go_on.set()
        assert restored(server, await large) is SnapshotKind.MEMORY
