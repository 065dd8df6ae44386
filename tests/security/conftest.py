import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from tests.security import inside as places
from tests.security.inside import Inside
from tests.security.lab import Lab, base_image, lab


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", params=os.environ.get("WARREN_ATTACK_TARGET", "runsc crun").split())
def runtime(request: pytest.FixtureRequest) -> str:
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    return request.param


@pytest.fixture(scope="session")
async def box(
    runtime: str, probes: Path, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> AsyncIterator[Lab]:
    async with lab(runtime, tmp_path_factory.mktemp("warren"), probes) as made:
        yield made


@pytest.fixture(scope="session")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return places.build(tmp_path_factory.mktemp("probes"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    local = LocalServer(tmp_path_factory.mktemp("warren"))
    with nothing_left(local), local:
        yield local


@pytest.fixture(scope="session")
def inside(runtime: str, probes: Path, request: pytest.FixtureRequest) -> Iterator[Inside]:
    """One sandbox of each runtime, or one container, which all probes share."""
    if runtime == "docker":
        place = places.in_docker(base_image())
    else:
        place = places.in_sandbox(request.getfixturevalue("server"), runtime)
    with place as where:
        places.install(where, probes)
        yield where
