"""What every store must do about idempotency keys. Subclass `KeyStoreSuite` like `StoreSuite`."""

import asyncio
from datetime import timedelta

import pytest

from tests.contract.store_suite import MANY, OTHER, PROJECT, SECOND, T0, sandbox
from warren.contracts.store import IdempotencyKey, KeyHolder, Store
from warren.model import limits
from warren.model.errors import IdempotencyInFlight
from warren.model.sandbox import EndReason, State


class KeyStoreSuite:
    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture(autouse=True)
    async def projects(self, store: Store) -> None:
        await store.add_project(PROJECT)
        await store.add_project(OTHER)

    async def test_a_key_is_held_by_the_sandbox_that_came_with_it(self, store: Store) -> None:
        assert await store.key_holder(PROJECT.id, "k", T0) is None
        assert await store.add_sandbox(sandbox(1), MANY, IdempotencyKey("k", "digest"))
        assert await store.key_holder(PROJECT.id, "k", T0) == KeyHolder("digest", sandbox(1).id)
        assert await store.key_holder(OTHER.id, "k", T0) is None
        await store.mark_gone(sandbox(1).id, EndReason.KILLED, T0)
        assert await store.key_holder(PROJECT.id, "k", T0) == KeyHolder("digest", sandbox(1).id)

    async def test_a_key_that_is_held_lets_no_other_sandbox_in(self, store: Store) -> None:
        key = IdempotencyKey("k", "digest")
        assert await store.add_sandbox(sandbox(1), 1, key)
        with pytest.raises(IdempotencyInFlight):
            await store.add_sandbox(sandbox(2), 1, key)
        assert await store.sandbox(PROJECT.id, sandbox(2).id) is None
        assert await store.add_sandbox(sandbox(1), 1, key), "the same again is a retry"
        assert await store.add_sandbox(sandbox(3, project=OTHER), 1, key)

    async def test_of_many_with_one_key_one_wins(self, store: Store) -> None:
        adds = (store.add_sandbox(sandbox(n), MANY, IdempotencyKey("k", str(n))) for n in range(20))
        outcomes = await asyncio.gather(*adds, return_exceptions=True)
        assert outcomes.count(True) == 1
        assert sum(isinstance(outcome, IdempotencyInFlight) for outcome in outcomes) == 19

    async def test_a_key_without_room_for_its_sandbox_stays_free(self, store: Store) -> None:
        assert not await store.add_sandbox(sandbox(1), 0, IdempotencyKey("k", "d"))
        assert await store.key_holder(PROJECT.id, "k", T0) is None

    async def test_a_start_that_failed_frees_its_key(self, store: Store) -> None:
        await store.add_sandbox(sandbox(1, state=State.CREATING), MANY, IdempotencyKey("k", "d"))
        await store.mark_gone(sandbox(1).id, EndReason.FAILED_TO_START, T0)
        assert await store.key_holder(PROJECT.id, "k", T0) is None
        assert await store.add_sandbox(sandbox(2), MANY, IdempotencyKey("k", "other"))
        assert await store.key_holder(PROJECT.id, "k", T0) == KeyHolder("other", sandbox(2).id)

    async def test_keys_are_free_again_after_their_time(self, store: Store) -> None:
        kept = sandbox(1).created_at + timedelta(seconds=limits.IDEMPOTENCY_TTL_S)
        await store.add_sandbox(sandbox(1), MANY, IdempotencyKey("k", "d"))
        assert await store.key_holder(PROJECT.id, "k", kept) is not None
        assert await store.key_holder(PROJECT.id, "k", kept + SECOND) is None
        assert await store.add_sandbox(sandbox(2, created_at=kept + SECOND), MANY, IdempotencyKey("k", "d"))

    async def test_a_create_whose_server_died_does_not_block_its_key_for_a_day(self, store: Store) -> None:
        longest = max(limits.CREATE_DEADLINE_S, limits.CHECKPOINT_DEADLINE_S)  # of what starts from a checkpoint
        row, create = sandbox(1, state=State.CREATING), timedelta(seconds=longest)
        await store.add_sandbox(row, MANY, IdempotencyKey("k", "d"))
        assert await store.key_holder(PROJECT.id, "k", row.created_at + create) is not None
        assert await store.key_holder(PROJECT.id, "k", row.created_at + 2 * create + SECOND) is None
