"""One Postgres for all of these tests."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.postgres_cluster import Cluster, cluster

_numbers = count(1)
DIALECTS = ["sqlite", "postgres"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


@pytest.fixture
def postgres_url(postgres: Cluster) -> Iterator[str]:
    """Of a database of its own, empty."""
    name = f"own_{next(_numbers)}"
    yield postgres.create(name)
    postgres.drop(name)


@pytest.fixture(params=DIALECTS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path / 'warren.db'}"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
