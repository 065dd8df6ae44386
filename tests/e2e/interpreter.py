"""What the tests of the code interpreter share: sandboxes of its template."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from e2b_code_interpreter import Sandbox

LIFE_S = 900
TEST_DEADLINE_S = 240
"""Seconds; on a busy machine a kernel of R or Java takes many to start."""


@pytest.fixture(scope="module")
def interpreter(on_runtime: dict[str, Any]) -> Iterator[Sandbox]:
    """One that the tests of a module share: names are each test's own."""
    with Sandbox.create(timeout=LIFE_S, **on_runtime) as sandbox:
        yield sandbox


def texts(logs: list[str]) -> str:
    return "".join(logs)


def until(condition: Callable[[], bool], attempts: int) -> bool:
    """Whether the condition comes true within that many looks, each of which takes its time."""
    return any(condition() for _ in range(attempts))
