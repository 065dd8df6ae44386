"""A fork that asks for more than there is: as many copies as fit, a reason for each of the others, nothing left."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from e2b import RateLimitException, Sandbox, ServiceBusyException

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from tests.e2e.test_limits import set_project_limits

ASKED, MACHINE_LIMIT, PROJECT_LIMIT, NO_LIMIT = 20, 7, 3, 100


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A machine with room for a few sandboxes."""
    local = LocalServer(tmp_path_factory.mktemp("small"), max_slots=MACHINE_LIMIT, pool_slots=1)
    with nothing_left(local), local:
        yield local


@pytest.mark.covers("S19", "C07")
def test_each_copy_that_does_not_fit_has_its_reason(small: LocalServer, on_runtime: dict[str, Any]) -> None:
    with Sandbox.create(timeout=300, **on_runtime, **small.options) as source:
        source.files.write("/home/user/work", "done")
        with fork_more_than_fit(source, MACHINE_LIMIT, ServiceBusyException), pytest.raises(ServiceBusyException):
            Sandbox.create(**on_runtime, **small.options)
        set_project_limits(small, sandboxes=PROJECT_LIMIT)
        try:
            with fork_more_than_fit(source, PROJECT_LIMIT, RateLimitException):
                assert source.commands.run("cat work").stdout == "done"
        finally:
            set_project_limits(small, sandboxes=NO_LIMIT)
        assert not list(small.state.glob("**/checkpoints/c*")), "the checkpoints are gone, whoever failed"


@contextmanager
def fork_more_than_fit(source: Sandbox, limit: int, error: type[Exception]) -> Iterator[None]:
    """With their source the copies are as many as the limit allows, and each of them works."""
    results = source.fork(count=ASKED, timeout=120)
    copies = [result for result in results if isinstance(result, Sandbox)]
    try:
        assert len(results) == ASKED
        assert len(copies) == limit - 1
        assert {type(result) for result in results if not isinstance(result, Sandbox)} == {error}
        assert {copy.commands.run("cat work; hostname").stdout for copy in copies} == {
            f"done{copy.sandbox_id}\n" for copy in copies
        }
        yield
    finally:
        for copy in copies:
            copy.kill()
