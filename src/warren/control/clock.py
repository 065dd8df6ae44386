"""The real clock and the real entropy."""

import asyncio
import secrets
import uuid
from datetime import UTC, datetime, timedelta

from warren.contracts.clock import Clock

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_LONGEST_NAP_S = 1.0
"""A wait is cut into naps, so that a jump of the wall clock is noticed within this many seconds."""


async def next_turn(clock: Clock, started: datetime, period: timedelta) -> None:
    """Return a period after `started`; a clock that was set back meanwhile makes that no longer than a period."""
    await clock.sleep_until(min(started, clock.now()) + period)


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep_until(self, when: datetime) -> None:
        steady = asyncio.get_running_loop().time
        end = steady() + (when - self.now()).total_seconds()
        while (left := min((when - self.now()).total_seconds(), end - steady())) > 0:  # noqa: ASYNC110 - time is no event
            await asyncio.sleep(min(left, _LONGEST_NAP_S))


class SystemIds:
    def sandbox_id(self) -> str:
        return "i" + _letters()

    def checkpoint_id(self) -> str:
        return "c" + _letters()

    def snapshot_id(self) -> str:
        return "s" + _letters()

    def volume_id(self) -> str:
        return "v" + _letters()

    def secret_id(self) -> str:
        return "sec_" + _letters()

    def template_id(self) -> str:
        return "t" + _letters()

    def uuid(self) -> str:
        return str(uuid.uuid4())

    def secret(self) -> str:
        return secrets.token_hex(20)


def _letters() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(20))
