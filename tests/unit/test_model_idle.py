"""The idle ladder, decided without a clock."""

from datetime import timedelta

import pytest

from warren.model import limits
from warren.model.errors import BadRequest
from warren.model.idle import Ladder, Step, default_ladder, parse_ladders

WHOLE = Ladder(60, 300, 1800)


@pytest.mark.parametrize(
    ("ladder", "seconds", "step"),
    [
        (WHOLE, 0, Step.RUNNING),
        (WHOLE, 59.9, Step.RUNNING),
        (WHOLE, 60, Step.FROZEN),
        (WHOLE, 300, Step.RECLAIMED),
        (WHOLE, 10**6, Step.ON_DISK),
        (Ladder(freeze_s=60), 10**6, Step.FROZEN),
        (Ladder(disk_s=60), 60, Step.ON_DISK),
        (Ladder(), 10**6, Step.RUNNING),
    ],
)
def test_the_deepest_step_that_was_earned_counts(ladder: Ladder, seconds: float, step: Step) -> None:
    assert ladder.step_after(timedelta(seconds=seconds)) is step


def test_ladders_are_written_by_template() -> None:
    assert parse_ladders(["base=60/300/1800", "*=-/-/60"]) == {"base": WHOLE, "*": Ladder(disk_s=60)}


@pytest.mark.parametrize(
    "word",
    [
        "base",
        "=1/2/3",
        "base=1/2",
        "base=1/2/3/4",
        "base=0/-/-",
        "base=a/-/-",
        "base=3/2/1",
        "base=-/9/8",
        f"base=1/-/{limits.IDLE_MAX_S + 1}",
    ],
)
def test_a_ladder_that_cannot_be_read_is_refused(word: str) -> None:
    with pytest.raises(BadRequest, match="WARREN_IDLE"):
        parse_ladders([word])


def test_a_template_has_one_ladder() -> None:
    with pytest.raises(BadRequest, match="once"):
        parse_ladders(["base=60/-/-", "base=70/-/-"])


@pytest.mark.parametrize("ladder", [WHOLE, Ladder(), Ladder(disk_s=60)])
def test_a_ladder_is_read_as_it_is_written(ladder: Ladder) -> None:
    assert Ladder.parse(str(ladder)) == ladder


def test_the_server_s_settings_name_a_template_or_every_other_one() -> None:
    named, every = Ladder(1), Ladder(2)
    assert default_ladder({"base": named, "*": every}, ("base", "t1")) == named
    assert default_ladder({"t1": named, "*": every}, ("base", "t1")) == named
    assert default_ladder({"base": named, "*": every}, ("other", "t2")) == every
    assert default_ladder({"base": named}, ("other", "t2")) == Ladder()
