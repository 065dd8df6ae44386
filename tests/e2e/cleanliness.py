"""A server that has stopped, and whose sandboxes are gone, leaves the machine as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests import leaks
from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until

GONE_S = 10
"""Seconds for the kernel to finish what it does later: loop devices, namespaces of processes just killed."""


@contextmanager
def nothing_left(server: LocalServer) -> Iterator[None]:
    before = leaks.snapshot(server.bridge, server.state)
    yield

    def is_clean() -> bool:
        return not leaks.difference(before, leaks.snapshot(server.bridge, server.state))

    try:
        until(is_clean, GONE_S, "nothing is left")
    except AssertionError:
        left = leaks.difference(before, leaks.snapshot(server.bridge, server.state))
        raise AssertionError(f"the server left something behind: {left}") from None
