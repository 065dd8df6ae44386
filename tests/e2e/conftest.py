"""One real server for all; tests reach it only through the `e2b` package, the command line, or as a browser would."""

import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2b import Sandbox

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from tests.e2e.public_url import PublicUrl

RUNTIMES = os.environ.get("WARREN_TEST_RUNTIMES", "runsc crun").split()
TEST_DEADLINE_S = 120
"""Seconds for one test; the slowest waits 30 s for a metrics sample."""
SANDBOX_LIFE_S = 600
collect_ignore = [] if os.environ.get("WARREN_TEST_DESKTOP") else ["test_desktop.py"]
"""What needs an image that set-up does not build: `make test-desktop`."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "covers(*lines): lines of the contract's feature checklist that the test proves")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here not in item.path.parents:
            continue
        item.add_marker(pytest.mark.e2e)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_DEADLINE_S))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    local = LocalServer(tmp_path_factory.mktemp("warren"))
    with nothing_left(local), local, pytest.MonkeyPatch.context() as patch:
        for name, value in local.environment.items():
            patch.setenv(name, value)
        yield local
        for info in _all_sandboxes():
            Sandbox.kill(info.sandbox_id)


def _all_sandboxes() -> list[Any]:
    pages = Sandbox.list()
    found: list[Any] = []
    while pages.has_next:
        found += pages.next_items()
    return found


@pytest.fixture(scope="session", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def on_runtime(runtime: str, server: LocalServer) -> dict[str, Any]:
    """Options of `Sandbox.create` that put a sandbox on the runtime under test."""
    return {"api_headers": {"X-Warren-Runtime": runtime}}


@pytest.fixture(scope="module")
def box(on_runtime: dict[str, Any]) -> Iterator[Sandbox]:
    """A sandbox that the tests of one module share: leave it as you found it."""
    with Sandbox.create(timeout=SANDBOX_LIFE_S, **on_runtime) as sandbox:
        yield sandbox


@pytest.fixture
def create(on_runtime: dict[str, Any]) -> Iterator[Callable[..., Sandbox]]:
    """Makes sandboxes that end with the test."""
    made: list[Sandbox] = []

    def make(*arguments: Any, **options: Any) -> Sandbox:
        options.setdefault("timeout", SANDBOX_LIFE_S)
        made.append(Sandbox.create(*arguments, **{**on_runtime, **options}))
        return made[-1]

    yield make
    for sandbox in made:
        sandbox.kill()


@pytest.fixture(scope="session")
def public(server: LocalServer) -> PublicUrl:
    """Fetches public addresses of sandboxes as a browser would, over TLS."""
    return PublicUrl(ssl.create_default_context(cafile=str(server.ca_bundle)))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
