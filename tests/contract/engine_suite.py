"""What every engine must do. Subclass `EngineSuite` in a test module and give it a `bench` fixture."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from typing import Protocol

import pytest

from warren.contracts.engine import Engine, SandboxSpec
from warren.model.errors import BadRequest, EngineFailed, NoCapacity, SandboxNotFound, Unavailable, WarrenError
from warren.model.policy import ALL_TRAFFIC, EgressPolicy
from warren.model.sandbox import Resources
from warren.model.template import TemplateImage

DEATH_DEADLINE_S = 10.0
MIB = 1024 * 1024
SMALL = Resources(cpu_count=1, memory_mb=256, disk_mb=128, pids=256)
_numbers = itertools.count(1)


class Bench(Protocol):
    """A machine for one test, and what a test does to it from outside the contract."""

    runtime: str
    image: TemplateImage
    slots: int

    def engine(self) -> Engine:
        """A new engine on the same machine: what a restarted server makes."""
        ...

    def kill_guest(self, engine: Engine, sandbox_id: str) -> None:
        """End PID 1 of a sandbox behind the engine's back."""
        ...

    def left_behind(self) -> dict[str, list[str]]:
        """Traces of sandboxes and engines on the machine; empty when all is clean."""
        ...


def new_id() -> str:
    return f"isuite{next(_numbers):015d}"


@dataclass
class Rig:
    """An open engine, and how to make sandboxes on it."""

    bench: Bench
    engine: Engine
    made: list[str] = field(default_factory=list[str])

    def spec(self, **changes: object) -> SandboxSpec:
        spec = SandboxSpec(new_id(), self.bench.runtime, self.bench.image, "box", SMALL)
        self.made.append(spec.id)
        return replace(spec, **changes)  # pyright: ignore[reportArgumentType]

    async def running(self, **changes: object) -> str:
        return (await self.engine.create(self.spec(**changes))).id

    async def ids(self) -> set[str]:
        return {placement.id for placement in await self.engine.list()}


class OnRig:
    """What the suites of an engine stand on: one open engine for each test, and a clean machine after it."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    async def rig(self, bench: Bench, anyio_backend: str) -> AsyncIterator[Rig]:
        rig = Rig(bench, bench.engine())
        await rig.engine.open()
        try:
            yield rig
        finally:
            for sandbox in rig.made:
                await rig.engine.destroy(sandbox)
            for checkpoint in await rig.engine.checkpoints():
                await rig.engine.forget(checkpoint.id)
            await rig.engine.close()
        assert bench.left_behind() == {}


class EngineSuite(OnRig):
    async def test_runtimes_name_the_default_first(self, rig: Rig) -> None:
        assert rig.engine.runtimes[0] == rig.bench.runtime
        assert len(set(rig.engine.runtimes)) == len(rig.engine.runtimes)

    async def test_open_is_idempotent(self, rig: Rig) -> None:
        kept = await rig.running()
        await rig.engine.open()
        assert await rig.ids() == {kept}

    async def test_a_new_engine_has_no_sandboxes(self, rig: Rig) -> None:
        assert await rig.engine.list() == []

    async def test_create_answers_with_what_was_asked_for(self, rig: Rig) -> None:
        spec = rig.spec()
        placement = await rig.engine.create(spec)
        assert (placement.id, placement.runtime) == (spec.id, spec.runtime)
        assert placement in await rig.engine.list()

    async def test_what_starts_in_the_background_can_be_brought_forward(self, rig: Rig) -> None:
        sandbox = await rig.running(in_background=True)
        await rig.engine.bring_forward(sandbox)
        await rig.engine.bring_forward(sandbox)
        assert await rig.ids() == {sandbox}
        with pytest.raises(SandboxNotFound):
            await rig.engine.bring_forward(new_id())

    async def test_an_unknown_runtime_is_refused(self, rig: Rig) -> None:
        with pytest.raises(BadRequest, match="cannot use runtime"):
            await rig.engine.create(rig.spec(runtime="warp"))
        assert await rig.engine.list() == []

    async def test_an_id_is_used_once(self, rig: Rig) -> None:
        spec = rig.spec()
        await rig.engine.create(spec)
        with pytest.raises(WarrenError, match="in use"):
            await rig.engine.create(spec)
        assert await rig.ids() == {spec.id}

    async def test_destroy_takes_it_off_the_list(self, rig: Rig) -> None:
        gone, kept = await rig.running(), await rig.running()
        await rig.engine.destroy(gone)
        assert await rig.ids() == {kept}

    async def test_destroy_is_idempotent(self, rig: Rig) -> None:
        sandbox = await rig.running()
        await rig.engine.destroy(sandbox)
        await rig.engine.destroy(sandbox)

    async def test_destroying_an_unknown_id_is_a_success(self, rig: Rig) -> None:
        await rig.engine.destroy(new_id())

    async def test_concurrent_destroys_join(self, rig: Rig) -> None:
        sandbox = await rig.running()
        await asyncio.gather(*(rig.engine.destroy(sandbox) for _ in range(3)))
        assert await rig.engine.list() == []

    async def test_death_of_an_unknown_id_returns_at_once(self, rig: Rig) -> None:
        async with asyncio.timeout(DEATH_DEADLINE_S):
            await rig.engine.death(new_id())

    async def test_death_waits_while_it_runs(self, rig: Rig) -> None:
        sandbox = await rig.running()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await rig.engine.death(sandbox)

    async def test_death_is_told_when_pid_1_ends(self, rig: Rig) -> None:
        sandbox = await rig.running()
        rig.bench.kill_guest(rig.engine, sandbox)
        async with asyncio.timeout(DEATH_DEADLINE_S):
            await rig.engine.death(sandbox)
        assert await rig.engine.list() == []

    async def test_death_is_told_on_destroy(self, rig: Rig) -> None:
        sandbox = await rig.running()
        async with asyncio.timeout(DEATH_DEADLINE_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(_until(rig.engine.death(sandbox)))
            await asyncio.sleep(0)
            await rig.engine.destroy(sandbox)

    async def test_a_dead_sandbox_can_be_destroyed(self, rig: Rig) -> None:
        sandbox = await rig.running()
        rig.bench.kill_guest(rig.engine, sandbox)
        async with asyncio.timeout(DEATH_DEADLINE_S):
            await rig.engine.death(sandbox)
        await rig.engine.destroy(sandbox)

    async def test_usage_knows_the_sizes_that_were_asked_for(self, rig: Rig) -> None:
        usage = await rig.engine.usage(await rig.running())
        assert (usage.cpu_count, usage.memory_total, usage.disk_total) == (1, 256 * MIB, 128 * MIB)
        assert 0 < usage.memory_used <= usage.memory_total
        assert 0 <= usage.memory_cache <= usage.memory_total
        assert 0 <= usage.disk_used <= usage.disk_total
        assert usage.cpu_seconds >= 0

    async def test_usage_of_what_is_not_there_is_not_found(self, rig: Rig) -> None:
        with pytest.raises(SandboxNotFound):
            await rig.engine.usage(new_id())
        dead = await rig.running()
        await rig.engine.destroy(dead)
        with pytest.raises(SandboxNotFound):
            await rig.engine.usage(dead)

    async def test_egress_can_be_replaced_again_and_again(self, rig: Rig) -> None:
        one, net = IPv4Network("203.0.113.7/32"), IPv4Network("203.0.113.0/24")
        sandbox = await rig.running(egress=EgressPolicy(allow=(one,), deny=(ALL_TRAFFIC,)))
        for policy in (
            EgressPolicy(deny=(net, one, net)),
            EgressPolicy(allow=(one, net, one), deny=(ALL_TRAFFIC, net)),
            EgressPolicy(allow=(one, net, one), deny=(ALL_TRAFFIC, net)),
            EgressPolicy(),
        ):
            await rig.engine.set_egress(sandbox, policy)

    async def test_egress_of_what_is_not_there_is_not_found(self, rig: Rig) -> None:
        with pytest.raises(SandboxNotFound):
            await rig.engine.set_egress(new_id(), EgressPolicy())

    async def test_several_start_at_once(self, rig: Rig) -> None:
        specs = [rig.spec() for _ in range(4)]
        placements = await asyncio.gather(*(rig.engine.create(spec) for spec in specs))
        assert await rig.ids() == {spec.id for spec in specs}
        if rig.bench.runtime != "fake":
            assert len({placement.address for placement in placements}) == len(specs)

    async def test_a_full_machine_says_so_and_has_room_again_after_a_destroy(self, rig: Rig) -> None:
        filled = [await rig.running() for _ in range(rig.bench.slots)]
        with pytest.raises(NoCapacity):
            await rig.running()
        await rig.engine.destroy(filled[0])
        again = await rig.running()
        assert await rig.ids() == {*filled[1:], again}

    async def test_a_failed_create_leaves_nothing(self, rig: Rig) -> None:
        spec = rig.spec(image=TemplateImage("sha256:none", ""))
        with pytest.raises(EngineFailed, match="cannot "):
            await rig.engine.create(spec)
        assert await rig.engine.list() == []
        await rig.engine.destroy(spec.id)
        assert [await rig.running() for _ in range(rig.bench.slots)]

    async def test_a_cancelled_create_leaves_nothing(self, rig: Rig) -> None:
        spec = rig.spec()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await rig.engine.create(spec)
        assert await rig.engine.list() == []
        assert [await rig.running() for _ in range(rig.bench.slots)]

    async def test_a_second_server_is_refused(self, rig: Rig) -> None:
        with pytest.raises(Unavailable, match="another server"):
            await rig.bench.engine().open()

    async def test_a_new_engine_adopts_what_runs(self, rig: Rig) -> None:
        policy = EgressPolicy(deny=(ALL_TRAFFIC,))
        kept, dead = await rig.running(egress=policy), await rig.running()
        placements = {placement.id: placement for placement in await rig.engine.list()}
        await rig.engine.close()
        rig.bench.kill_guest(rig.engine, dead)
        rig.engine = rig.bench.engine()
        await rig.engine.open()
        assert await rig.engine.list() == [placements[kept]]
        assert (await rig.engine.usage(kept)).memory_total == 256 * MIB
        await rig.engine.set_egress(kept, EgressPolicy())
        rig.bench.kill_guest(rig.engine, kept)
        async with asyncio.timeout(DEATH_DEADLINE_S):
            await rig.engine.death(kept)
        await rig.engine.destroy(kept)
        assert [await rig.running() for _ in range(rig.bench.slots)]


async def _until(awaitable: object) -> None:
    await awaitable  # type: ignore[misc]
