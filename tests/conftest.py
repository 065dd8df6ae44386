import os
from collections.abc import Iterator

import pytest

from tests.e2e.internet import Internet


@pytest.fixture(scope="session")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    """One of each process: an address that is trapped once cannot be trapped again."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with Internet(tmp_path_factory.mktemp("internet")).up() as made:
        yield made
