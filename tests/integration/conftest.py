"""What the gateway's tests share: the loop that it runs on in the product, and a gateway before made-up sandboxes."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.gateway_rig import Rig, running_gateway


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running_gateway() as running:
        yield running
