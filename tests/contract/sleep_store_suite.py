"""What every store must do about sleep and snapshots. Subclass `SleepStoreSuite` like `StoreSuite`."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.store_suite import MANY, MICROSECOND, OTHER, PROJECT, SECOND, T0, sandbox
from warren.contracts.store import SandboxQuery, SnapshotQuery, Store
from warren.model.errors import LimitReached
from warren.model.pause import Lifecycle, Pause, PauseCause, PauseKind
from warren.model.project import Project
from warren.model.sandbox import Resources, Sandbox, State
from warren.model.snapshot import Snapshot, SnapshotKind, SnapshotUsage

LATER = T0 + 1000 * SECOND
MEMORY = Pause("cpaused", PauseKind.MEMORY, PauseCause.DEADLINE, LATER, guest_silent=True)
FROZEN = Pause(None, PauseKind.FROZEN, PauseCause.OWNER, T0)


def snapshot(number: int, project: Project = PROJECT, **changes: object) -> Snapshot:
    made = Snapshot(
        id=f"s{number:020}",
        project_id=project.id,
        checkpoint_id=f"c{number:020}",
        kind=SnapshotKind.MEMORY,
        source_id=f"i{number:020}",
        template_id="base",
        digest="sha256:1",
        default_user="user",
        default_workdir="/home/user",
        runtime="runsc",
        resources=Resources(3, 129, 65, 7),
        created_at=T0 + number * SECOND,
        bytes=1 << 40,
    )
    return replace(made, **changes)  # pyright: ignore[reportArgumentType]


class SleepStoreSuite:
    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture(autouse=True)
    async def projects(self, store: Store) -> None:
        await store.add_project(PROJECT)
        await store.add_project(OTHER)

    async def asleep(self, store: Store, row: Sandbox, pause: Pause) -> Sandbox:
        await store.add_sandbox(row, MANY)
        await store.claim_pause(row.id, pause)
        paused = await store.mark_paused(row.id, 7)
        assert paused is not None
        return paused

    async def test_what_belongs_to_sleep_comes_back_whole(self, store: Store) -> None:
        row = sandbox(
            digest="sha256:2", default_user="root", default_workdir="/", lifecycle=Lifecycle(True, False, True)
        )
        await store.add_sandbox(row, MANY)
        assert await store.sandbox(PROJECT.id, row.id) == row
        assert await store.sleeper(row.id) is None
        pausing = await store.claim_pause(row.id, MEMORY)
        assert await store.sleeper(row.id) == pausing
        assert pausing == replace(row, state=State.PAUSING, pause=MEMORY)
        paused = await store.mark_paused(row.id, 1 << 40)
        assert paused == replace(row, state=State.PAUSED, pause=replace(MEMORY, bytes=1 << 40))
        assert await store.claim_resume(PROJECT.id, row.id, 1) == replace(paused, state=State.RESUMING)
        awake = await store.mark_awake(row.id, LATER)
        assert awake == replace(row, expires_at=LATER)
        assert await store.sandbox(PROJECT.id, row.id) == awake

    async def test_each_step_of_sleep_needs_its_state(self, store: Store) -> None:
        steps: dict[frozenset[State], Callable[[str], Coroutine[Any, Any, Sandbox | None]]] = {
            frozenset({State.RUNNING}): lambda name: store.claim_pause(name, MEMORY),
            frozenset({State.PAUSING}): lambda name: store.mark_paused(name, 1),
            frozenset({State.PAUSED}): lambda name: store.claim_resume(PROJECT.id, name, MANY),
            frozenset({State.PAUSING, State.RESUMING}): lambda name: store.mark_awake(name, LATER),
        }
        for number, state in enumerate(State):
            row = sandbox(number, state=state)
            await store.add_sandbox(row, MANY)
            for allowed, step in steps.items():
                if state not in allowed:
                    assert await step(row.id) is None
            assert await store.sandbox(PROJECT.id, row.id) == row

    async def test_a_pause_by_the_deadline_needs_that_it_has_come(self, store: Store) -> None:
        row = sandbox()
        await store.add_sandbox(row, MANY)
        assert await store.set_deadline(row.id, LATER + MICROSECOND, True)
        assert await store.claim_pause(row.id, MEMORY) is None
        found = await store.sandbox(PROJECT.id, row.id)
        assert found is not None
        assert (found.state, found.pause) == (State.RUNNING, None)
        assert await store.set_deadline(row.id, LATER, False)
        assert await store.claim_pause(row.id, MEMORY)

    async def test_a_pause_by_its_owner_asks_for_no_deadline(self, store: Store) -> None:
        await store.add_sandbox(sandbox(), MANY)
        assert await store.claim_pause(sandbox().id, replace(MEMORY, by=PauseCause.OWNER, at=T0))

    async def test_of_many_who_pause_or_resume_at_once_one_wins(self, store: Store) -> None:
        await store.add_sandbox(sandbox(), MANY)
        claims = await asyncio.gather(*(store.claim_pause(sandbox().id, MEMORY) for _ in range(10)))
        assert sum(claim is not None for claim in claims) == 1
        await store.mark_paused(sandbox().id, 1)
        claims = await asyncio.gather(*(store.claim_resume(PROJECT.id, sandbox().id, MANY) for _ in range(10)))
        assert sum(claim is not None for claim in claims) == 1

    async def test_what_sleeps_on_disk_holds_no_place_and_what_is_frozen_does(self, store: Store) -> None:
        await self.asleep(store, sandbox(1), MEMORY)
        await self.asleep(store, sandbox(2), FROZEN)
        assert not await store.add_sandbox(sandbox(3), quota=1)
        assert await store.add_sandbox(sandbox(3), quota=2)
        with pytest.raises(LimitReached, match="cannot resume"):
            await store.claim_resume(PROJECT.id, sandbox(1).id, 2)
        kept = await store.sandbox(PROJECT.id, sandbox(1).id)
        assert kept is not None
        assert kept.state is State.PAUSED
        assert await store.claim_resume(PROJECT.id, sandbox(2).id, 2)
        assert await store.claim_resume(PROJECT.id, sandbox(1).id, 3)

    async def test_what_sleeps_is_never_overdue_but_can_be_wished_gone(self, store: Store) -> None:
        row = await self.asleep(store, sandbox(), MEMORY)
        assert await store.overdue(row.server_id, LATER) == []
        await store.wish_gone(row.id)
        assert [one.id for one in await store.overdue(row.server_id, T0)] == [row.id]

    async def test_a_list_shows_the_states_that_were_asked_for(self, store: Store) -> None:
        for number, state in enumerate([*State, State.PAUSED, State.RUNNING]):
            await store.add_sandbox(sandbox(number, state=state), MANY)
        asked = SandboxQuery(PROJECT.id, frozenset({State.RUNNING, State.PAUSED, State.PAUSING}))

        async def numbers(query: SandboxQuery) -> list[int]:
            return [int(row.id[1:]) for row in await store.sandboxes(query)]

        assert await numbers(asked) == [8, 7, 3, 2, 1]
        assert await numbers(replace(asked, ascending=True, limit=3)) == [1, 2, 3]
        assert await numbers(replace(asked, after=(T0 + 7 * SECOND, f"i{7:020}"), limit=2)) == [3, 2]
        assert await numbers(replace(asked, states=frozenset())) == []

    async def test_checkpoints_are_referenced_while_something_stands_on_them(self, store: Store) -> None:
        row = await self.asleep(store, sandbox(1), MEMORY)
        await self.asleep(store, sandbox(2), FROZEN)
        await store.add_snapshot(snapshot(1))
        await store.add_snapshot(snapshot(2, OTHER))
        assert await store.referenced_checkpoints() == {"cpaused", snapshot(1).checkpoint_id, snapshot(2).checkpoint_id}
        assert await store.snapshot_usage(PROJECT.id) == SnapshotUsage(1, 7, 1, 1 << 40)
        await store.move(row.id, frozenset({State.PAUSED}), State.KILLING)
        await store.move(row.id, frozenset({State.KILLING}), State.GONE)
        assert await store.remove_snapshot(PROJECT.id, snapshot(1).id)
        assert await store.referenced_checkpoints() == {snapshot(2).checkpoint_id}
        assert await store.snapshot_usage(PROJECT.id) == SnapshotUsage(0, 0, 0, 0)

    async def test_a_snapshot_is_found_by_its_own_project_and_removed_once(self, store: Store) -> None:
        await store.add_snapshot(snapshot(1, name="one", tag="v1"))
        assert await store.snapshot(PROJECT.id, snapshot(1).id) == snapshot(1, name="one", tag="v1")
        assert await store.snapshot(OTHER.id, snapshot(1).id) is None
        assert await store.named_snapshot(OTHER.id, "one", "v1") is None
        assert await store.named_snapshot(PROJECT.id, "one", "default") is None
        assert not await store.remove_snapshot(OTHER.id, snapshot(1).id)
        assert await store.remove_snapshot(PROJECT.id, snapshot(1).id)
        assert not await store.remove_snapshot(PROJECT.id, snapshot(1).id)

    async def test_a_newer_version_takes_the_name_and_leaves_the_older_its_id(self, store: Store) -> None:
        await store.add_snapshot(snapshot(1, name="one"))
        await store.add_snapshot(snapshot(2, OTHER, name="one"))
        await store.add_snapshot(snapshot(3, name="one", tag="v2"))
        await store.add_snapshot(snapshot(4, name="one"))
        assert await store.named_snapshot(PROJECT.id, "one", "default") == snapshot(4, name="one")
        assert await store.named_snapshot(OTHER.id, "one", "default") == snapshot(2, OTHER, name="one")
        assert await store.snapshot(PROJECT.id, snapshot(1).id) == snapshot(1)

    async def test_snapshots_are_listed_newest_first_by_source_by_name_and_in_pages(self, store: Store) -> None:
        for number in range(5):
            await store.add_snapshot(snapshot(number, name=f"n{number % 2}", tag=f"t{number}"))
        await store.add_snapshot(snapshot(9, OTHER))
        query = SnapshotQuery(PROJECT.id, limit=2)
        seen: list[int] = []
        while page := await store.snapshots(query):
            seen += [int(one.id[1:]) for one in page]
            query = replace(query, after=(page[-1].created_at, page[-1].id))
        assert seen == [4, 3, 2, 1, 0]
        query = replace(query, limit=100, after=None)
        assert [one.id for one in await store.snapshots(replace(query, source_id=snapshot(3).source_id))] == [
            snapshot(3).id
        ]
        assert len(await store.snapshots(replace(query, name="n1"))) == 2
        assert len(await store.snapshots(replace(query, name="n1", tag="t3"))) == 1
