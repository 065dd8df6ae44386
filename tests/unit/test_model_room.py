"""Whether one more sandbox fits on a machine."""

from dataclasses import replace

import pytest

from warren.model import limits
from warren.model.room import Machine, Room
from warren.model.sandbox import Resources

MACHINE = Machine(memory_total=24_000, memory_available=20_000, disk_total=100_000, disk_free=50_000)
USUAL = Resources()


def room(running: int = 0, machine: Machine = MACHINE, overcommit: int = 10) -> Room:
    return Room.of(machine, [USUAL] * running, overcommit, overcommit)


def test_what_is_promised_is_added_up() -> None:
    full = room(3)
    assert (full.sandboxes, full.memory_committed, full.disk_committed) == (3, 3072, 6144)
    assert (full.memory_limit, full.disk_limit) == (240_000, 1_000_000)


def test_the_default_lets_two_hundred_idle_ones_run_on_24_gib() -> None:
    assert room(199).refusal(USUAL) is None


@pytest.mark.parametrize(
    ("full", "names"),
    [
        (room(23, overcommit=1), "WARREN_MEMORY_OVERCOMMIT"),
        (room(10, replace(MACHINE, disk_total=2000)), "WARREN_DISK_OVERCOMMIT"),
        (room(0, replace(MACHINE, memory_available=limits.MEMORY_RESERVE_MB - 1)), "reserve"),
    ],
    ids=["memory promised", "disk promised", "memory used up"],
)
def test_a_full_machine_says_what_is_missing(full: Room, names: str) -> None:
    assert names in (full.refusal(USUAL) or "")


def test_the_last_one_fits_exactly() -> None:
    machine = replace(MACHINE, memory_total=2048)
    assert room(1, machine, overcommit=1).refusal(replace(USUAL, disk_mb=64)) is None
    assert room(2, machine, overcommit=1).refusal(replace(USUAL, disk_mb=64)) is not None
