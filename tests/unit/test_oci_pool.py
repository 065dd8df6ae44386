"""The slot pool, with a maker that only writes down what it is asked for."""

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from warren.engine.oci import pool as pool_module
from warren.engine.oci.pool import BATCH, SlotPool
from warren.engine.oci.slot import Slot, SlotPlan
from warren.model.errors import EngineFailed, NoCapacity

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Maker:
    def __init__(self) -> None:
        self.made: set[int] = set()
        self.makes = 0
        self.fail = False

    def renew(self, used: Sequence[Slot], fresh: Sequence[Slot]) -> None:
        self.unmake(used)
        if self.fail:
            raise EngineFailed("cannot prepare a network slot: told not to")
        assert not self.made & {slot.index for slot in fresh}, "a slot is made once"
        self.made |= {slot.index for slot in fresh}
        self.makes += len(fresh)

    def unmake(self, slots: Sequence[Slot]) -> None:
        self.made -= {slot.index for slot in slots}


def pool(maker: Maker, slots: int = 4, ahead: int = 2) -> SlotPool:
    plan = SlotPlan(IPv4Network("198.18.0.0/24"), "warren0", Path("/nowhere"), slots)
    return SlotPool(plan, maker, ahead)  # type: ignore[arg-type]


async def filled(maker: Maker, count: int) -> None:
    async with asyncio.timeout(5):
        while len(maker.made) < count:
            await asyncio.sleep(0.001)


async def idle(slots: SlotPool, count: int) -> None:
    async with asyncio.timeout(5):
        while len(slots.idle) < count:
            await asyncio.sleep(0.001)


async def test_slots_are_made_ahead() -> None:
    maker = Maker()
    slots = pool(maker)
    slots.open(taken=[])
    await filled(maker, 2)
    assert (await slots.take()).index in maker.made
    await slots.close()
    assert len(maker.made) == 1


async def test_others_are_made_once_nobody_takes_any_or_few_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "CALM_S", 3600)
    maker = Maker()
    slots = pool(maker, slots=8, ahead=4)
    slots.open(taken=[])
    await idle(slots, 4)
    await slots.take()
    await asyncio.sleep(0.02)
    assert maker.makes == 4
    await slots.take()
    await slots.take()
    await filled(maker, 7)
    await slots.close()


async def test_a_burst_is_not_disturbed_while_many_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "CALM_S", 3600)
    maker = Maker()
    slots = pool(maker, slots=40, ahead=20)
    slots.open(taken=[])
    await idle(slots, 20)
    for _ in range(20 - BATCH - 1):
        await slots.take()
    await asyncio.sleep(0.02)
    assert maker.makes == 20
    await slots.take()
    await filled(maker, 20 + BATCH)
    await slots.close()


async def test_a_slot_is_given_to_one_at_a_time_and_made_anew_in_between() -> None:
    maker = Maker()
    slots = pool(maker)
    slots.open(taken=[])
    held = await asyncio.gather(*(slots.take() for _ in range(4)))
    assert len({slot.index for slot in held}) == 4
    slots.give_back(held[0])
    again = await slots.take()
    assert again.index == held[0].index
    assert maker.makes == 5
    await slots.close()


async def test_a_full_machine_says_so() -> None:
    slots = pool(Maker())
    slots.open(taken=[0, 1, 2])
    await slots.take()
    with pytest.raises(NoCapacity, match="all 4 network slots"):
        await slots.take()
    await slots.close()


async def test_slots_of_running_sandboxes_are_left_alone() -> None:
    maker = Maker()
    slots = pool(maker)
    slots.open(taken=[0, 2])
    assert {(await slots.take()).index, (await slots.take()).index} == {1, 3}
    await slots.close()


async def test_a_slot_that_could_not_be_made_is_not_lost() -> None:
    maker = Maker()
    slots = pool(maker, slots=1, ahead=0)
    slots.open(taken=[])
    maker.fail = True
    with pytest.raises(EngineFailed, match="told not to"):
        await slots.take()
    maker.fail = False
    async with asyncio.timeout(5):
        assert (await slots.take()).index == 0
    await slots.close()
