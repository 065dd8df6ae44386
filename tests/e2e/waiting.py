"""Waiting for a fact, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

POLL_S = 0.05
Value = TypeVar("Value")


def until(probe: Callable[[], Value], within_s: float, what: str) -> Value:
    """The first true value of `probe`; fails when there is none within `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:.0f} s: {what}")
        time.sleep(POLL_S)
