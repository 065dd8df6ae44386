"""How many spares of which kind: decided without a clock, an engine or a wait."""

from datetime import UTC, datetime, timedelta

import pytest

from warren.model import limits
from warren.model.errors import BadRequest
from warren.model.pool import Budget, Demand, Floor, Kind, Rush, parse_floors, targets
from warren.model.sandbox import Resources

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE = Kind("tbase", "sha256:1", "runsc", Resources(memory_mb=1024))
LARGE = Kind("tbase", "sha256:1", "crun", Resources(memory_mb=4096))
PLENTY = Budget(100, 1_000_000)


def at(*seconds: float, kind: Kind = BASE) -> Demand:
    demand = Demand()
    for second in seconds:
        demand.note(kind, NOW + timedelta(seconds=second))
    return demand


def test_what_was_asked_for_at_once_is_kept_ready() -> None:
    assert at(0, 0.1, 0.2, 100).bursts(NOW + timedelta(seconds=101)) == {BASE: 3}


def test_creates_one_after_the_other_need_one_spare() -> None:
    step = limits.POOL_BURST_S + 1
    assert at(0, step, 2 * step).bursts(NOW + timedelta(seconds=2 * step)) == {BASE: 1}


def test_what_was_asked_for_long_ago_is_forgotten() -> None:
    demand = at(0)
    assert demand.bursts(NOW + timedelta(seconds=limits.POOL_MEMORY_S + 1)) == {}


def test_the_memory_of_kinds_is_bounded_and_the_oldest_goes() -> None:
    demand = at(0)
    for number in range(limits.POOL_KINDS_REMEMBERED):
        demand.note(Kind(f"t{number}", "sha256:1", "runsc", Resources()), NOW)
    found = demand.bursts(NOW)
    assert len(found) == limits.POOL_KINDS_REMEMBERED
    assert BASE not in found


def test_floors_hold_without_demand_and_demand_adds_to_no_floor() -> None:
    assert targets({BASE: 2}, {}, PLENTY) == {BASE: 2}
    assert targets({BASE: 2}, {BASE: 1, LARGE: 3}, PLENTY) == {BASE: 2, LARGE: 3}


def test_the_budget_is_shared_in_turn_and_floors_come_first() -> None:
    assert targets({LARGE: 1}, {BASE: 5, LARGE: 5}, Budget(4, 1_000_000)) == {LARGE: 3, BASE: 1}


def test_memory_bounds_as_the_number_does() -> None:
    assert targets({}, {BASE: 5, LARGE: 5}, Budget(100, 5 * 1024)) == {BASE: 1, LARGE: 1}
    assert targets({BASE: 2}, {}, Budget(0, 0)) == {BASE: 0}


def test_floors_are_written_as_template_and_count() -> None:
    assert parse_floors(["base=2", "base/crun=1"]) == (Floor("base", None, 2), Floor("base", "crun", 1))


@pytest.mark.parametrize("word", ["base", "base=", "=2", "base/=2", "base=-1", "base=two", "/crun=1", "base=²"])
def test_a_floor_that_cannot_be_read_is_refused(word: str) -> None:
    with pytest.raises(BadRequest, match="WARREN_POOL"):
        parse_floors([word])


def test_a_rush_is_waited_for_but_not_for_ever() -> None:
    rush = Rush()
    assert rush.left(100.0) == 0
    rush.note(100.0)
    assert rush.left(100.0) == limits.POOL_QUIET_S
    assert rush.left(100.0 + limits.POOL_QUIET_S) == 0
    for step in range(100):
        rush.note(100.0 + step * limits.POOL_QUIET_S / 2)
    assert rush.left(100.0 + limits.POOL_RUSH_S) == 0
    rush.over()
    rush.note(200.0)
    assert rush.left(200.0) == limits.POOL_QUIET_S
