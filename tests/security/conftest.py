import os
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.internet import Internet
from tests.security.lab import Lab, lab


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", params=["runsc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    return request.param


@pytest.fixture(scope="session")
async def box(runtime: str, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Lab]:
    async with lab(runtime, tmp_path_factory.mktemp("warren")) as made:
        yield made


@pytest.fixture(scope="session")
def internet(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with Internet(tmp_path_factory.mktemp("internet")).up() as made:
        yield made
