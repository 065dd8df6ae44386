"""What every store must do about secrets. Subclass `SecretsStoreSuite` like `StoreSuite`."""

import asyncio
from dataclasses import replace

import pytest

from tests.contract.store_suite import MANY, ODD_TEXT, OTHER, PROJECT, SECOND, T0
from warren.contracts.store import SecretQuery, Store
from warren.model import limits
from warren.model.errors import AlreadyExists
from warren.model.project import Project
from warren.model.secret import SealedValue, Secret


def secret(number: int, project: Project = PROJECT, **changes: object) -> Secret:
    made = T0 + number * SECOND
    return replace(  # pyright: ignore[reportArgumentType]
        Secret(f"sec_{number:020}", project.id, f"Name-{number}", 1, made, made, {"a": "b"}), **changes
    )


def value(of: Secret, key_id: str = "one", text: str = "sealed") -> SealedValue:
    return SealedValue(of.project_id, of.id, of.version, key_id, text)


async def add(store: Store, *rows: Secret) -> None:
    for row in rows:
        assert await store.add_secret(row, value(row), MANY)


def next_version(of: Secret) -> Secret:
    return replace(of, version=of.version + 1, updated_at=of.updated_at + SECOND)


class SecretsStoreSuite:
    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture(autouse=True)
    async def projects(self, store: Store) -> None:
        await store.add_project(PROJECT)
        await store.add_project(OTHER)

    async def test_a_secret_is_found_by_id_and_by_name_in_any_case(self, store: Store) -> None:
        one = secret(1)
        await add(store, one, secret(2))
        for reference in (one.id, "Name-1", "name-1", "NAME-1"):
            assert await store.find_secret(PROJECT.id, reference) == one
            assert await store.find_secret(OTHER.id, reference) is None
        assert await store.find_secret(PROJECT.id, ODD_TEXT) is None

    async def test_a_name_is_taken_whatever_its_case_and_only_within_the_project(self, store: Store) -> None:
        await add(store, secret(1), secret(2, OTHER, name="NAME-1"))
        with pytest.raises(AlreadyExists):
            await store.add_secret(secret(3, name="nAME-1"), value(secret(3)), MANY)
        assert await store.add_secret(secret(1), value(secret(1)), MANY)  # a retry

    async def test_the_quota_holds_also_at_once(self, store: Store) -> None:
        rows = [secret(number) for number in range(5)]
        added = await asyncio.gather(*(store.add_secret(row, value(row), 3) for row in rows))
        assert sum(added) == 3
        assert await store.add_secret(secret(9, OTHER), value(secret(9, OTHER)), 3)

    async def test_versions_follow_each_other_and_only_once(self, store: Store) -> None:
        one = secret(1)
        await add(store, one)
        two = next_version(one)
        done = await asyncio.gather(*(store.renew_secret(two, value(two, text=str(n))) for n in range(3)))
        assert sum(done) == 1
        assert await store.find_secret(PROJECT.id, one.id) == two
        assert not await store.renew_secret(replace(next_version(two), project_id=OTHER.id), value(two))
        assert not await store.renew_secret(next_version(next_version(two)), value(two))

    async def test_old_values_are_dropped(self, store: Store) -> None:
        row = secret(1)
        await add(store, row)
        for _ in range(limits.SECRET_VERSIONS_KEPT + 2):
            row = next_version(row)
            assert await store.renew_secret(row, value(row))
        kept = await store.values_under_other_keys("none", ("", 0), MANY)
        assert [one.version for one in kept] == list(range(4, row.version + 1))

    async def test_pages_go_from_the_newest_on(self, store: Store) -> None:
        rows = [secret(number) for number in range(4)]
        await add(store, *rows, secret(9, OTHER))
        assert await store.secrets(SecretQuery(PROJECT.id, 3)) == rows[:0:-1]
        after = rows[1].created_at, rows[1].id
        assert await store.secrets(SecretQuery(PROJECT.id, 3, after)) == rows[:1]

    async def test_a_removed_secret_takes_its_values_along(self, store: Store) -> None:
        one, two = secret(1), secret(2)
        await add(store, one, two)
        assert not await store.remove_secret(OTHER.id, one.id)
        assert await store.remove_secret(PROJECT.id, one.id)
        assert not await store.remove_secret(PROJECT.id, one.id)
        assert await store.find_secret(PROJECT.id, one.id) is None
        assert await store.values_under_other_keys("none", ("", 0), MANY) == [value(two)]

    async def test_values_under_other_keys_come_in_pages_and_are_replaced_once(self, store: Store) -> None:
        rows = [secret(number) for number in range(3)]
        await add(store, *rows)
        first = await store.values_under_other_keys("two", ("", 0), 2)
        assert first == [value(row) for row in rows[:2]]
        behind = first[-1].secret_id, first[-1].version
        assert await store.values_under_other_keys("two", behind, 2) == [value(rows[2])]
        await store.replace_value(first[0], value(rows[0], "two", "anew"))
        await store.replace_value(first[0], value(rows[0], "three", "too late"))
        assert await store.values_under_other_keys("two", ("", 0), MANY) == [value(row) for row in rows[1:]]
        assert await store.values_under_other_keys("one", ("", 0), MANY) == [value(rows[0], "two", "anew")]
