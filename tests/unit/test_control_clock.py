"""The clock of the machine may be set: waits end soon after it went forward, and last no longer when it went back."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from warren.control import clock
from warren.control.clock import SystemClock

pytestmark = pytest.mark.anyio
HOUR = timedelta(hours=1)
PATIENCE_S = 10


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class SetClock(SystemClock):
    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture(autouse=True)
def short_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_LONGEST_NAP_S", 0.01)


async def test_a_clock_set_back_lets_nobody_wait_longer() -> None:
    here = SetClock()
    waiting = asyncio.ensure_future(here.sleep_until(here.now() + timedelta(seconds=0.1)))
    await asyncio.sleep(0)
    here.ahead = -HOUR
    await asyncio.wait_for(waiting, PATIENCE_S)


async def test_a_clock_set_forward_ends_the_wait() -> None:
    here = SetClock()
    waiting = asyncio.ensure_future(here.sleep_until(here.now() + HOUR))
    await asyncio.sleep(0)
    here.ahead = 2 * HOUR
    await asyncio.wait_for(waiting, PATIENCE_S)
