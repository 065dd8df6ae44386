"""The steps of one piece of work and what each took: to whoever listens, and as spans.

Whoever starts the work listens; whoever does a part of it, at any depth and on any thread that the work started,
names it. Without a listener naming costs nothing.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

from warren.telemetry import tracing

Listener = Callable[[str, float], None]
_listener: ContextVar[Listener | None] = ContextVar("steps", default=None)


@contextmanager
def listening(listener: Listener) -> Generator[None]:
    """`listener` gets each step's name and seconds, also from other threads."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def step(name: str) -> Generator[None]:
    since = time.perf_counter()
    try:
        yield
    finally:
        took(name, since, time.perf_counter())


def took(name: str, since: float, until: float) -> None:
    """A step that is over, by times of `time.perf_counter`."""
    listener = _listener.get()
    if listener is not None:
        listener(name, until - since)
        tracing.took(name, since, until)
