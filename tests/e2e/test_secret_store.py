"""Secrets through the client: kept, described, renewed, never given back."""

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest
from e2b import AsyncSecret, Secret
from e2b.exceptions import SecretException, SecretNotFoundException

from tests.e2e.local_server import LocalServer

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def name() -> Iterator[str]:
    chosen = f"Token-{secrets.token_hex(4)}"
    yield chosen
    Secret.destroy(chosen)


@pytest.fixture
async def async_name() -> AsyncIterator[str]:
    chosen = f"Token-{secrets.token_hex(4)}"
    yield chosen
    await AsyncSecret.destroy(chosen)


@pytest.mark.covers("K01")
def test_a_secret_lives_from_create_to_destroy(name: str) -> None:
    made = Secret.create(name, "first", metadata={"team": "a"})
    assert (made.name, made.version, made.metadata) == (name, 1, {"team": "a"})
    assert made.secret_id.startswith("sec_")
    assert Secret.get_info(made.secret_id) == Secret.get_info(name.lower()) == made
    newer = Secret.update(name, "second")
    assert (newer.secret_id, newer.version, newer.metadata) == (made.secret_id, 2, {"team": "a"})
    assert newer.updated_at > made.updated_at
    assert newer.created_at == made.created_at
    assert Secret.exists(name)
    assert Secret.destroy(name) is True
    assert not Secret.exists(name)
    assert Secret.destroy(name) is False
    with pytest.raises(SecretNotFoundException):
        Secret.update(name, "third")


@pytest.mark.covers("K01")
def test_a_name_is_taken_in_any_case(name: str) -> None:
    Secret.create(name, "x")
    with pytest.raises(SecretException, match="409"):
        Secret.create(name.upper(), "y")
    with pytest.raises(SecretException, match="400"):
        Secret.create("no spaces", "y")


@pytest.mark.covers("K01")
def test_a_list_is_drained_page_by_page(name: str) -> None:
    made = [Secret.create(f"{name}-{number}", "x").secret_id for number in range(5)]
    try:
        pages, found = Secret.list(limit=2), []
        while pages.has_next:
            page = pages.next_items()
            assert len(page) <= 2
            found += [one.secret_id for one in page]
        assert [one for one in found if one in made] == made[::-1]
    finally:
        for secret_id in made:
            Secret.destroy(secret_id)


@pytest.mark.covers("K01")
@pytest.mark.anyio
async def test_the_async_client_does_the_same(async_name: str) -> None:
    made = await AsyncSecret.create(async_name, "first")
    assert (await AsyncSecret.update(async_name, "second", metadata={"a": "b"})).version == 2
    assert (await AsyncSecret.get_info(made.secret_id)).metadata == {"a": "b"}
    pages, found = AsyncSecret.list(), []
    while pages.has_next:
        found += [one.name for one in await pages.next_items()]
    assert async_name in found
    assert await AsyncSecret.destroy(async_name) is True
    assert not await AsyncSecret.exists(async_name)


@pytest.mark.covers("K01")
def test_secrets_outlive_the_server_and_are_nowhere_in_the_open(server: LocalServer, name: str) -> None:
    planted = f"planted-{secrets.token_hex(16)}"
    Secret.create(name, planted)
    server.kill()
    server.start()
    assert Secret.get_info(name).version == 1
    files = [path for path in server.folder.rglob("*") if path.is_file() and "layers" not in path.parts]
    assert not [path for path in files if planted.encode() in path.read_bytes()]
