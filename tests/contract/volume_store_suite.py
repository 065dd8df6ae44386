"""What every store must do about volumes. Subclass `VolumeStoreSuite` like `StoreSuite`."""

import asyncio
from dataclasses import replace

import pytest

from tests.contract.sleep_store_suite import snapshot
from tests.contract.store_suite import AWAY, HOME, MANY, OTHER, PROJECT, SECOND, T0, sandbox
from warren.contracts.store import Store
from warren.model.errors import AlreadyExists, LimitReached, VolumeNotFound
from warren.model.pause import Pause, PauseCause, PauseKind
from warren.model.project import Project, ProjectLimits
from warren.model.sandbox import EndReason, State
from warren.model.volume import Volume, VolumeMount

QUOTA = ProjectLimits(volumes=MANY, volume_mb=MANY)


def volume(number: int, project: Project = PROJECT, **changes: object) -> Volume:
    made = Volume(f"v{number:020}", project.id, f"name-{number}", 10, T0 + number * SECOND, HOME.id)
    return replace(made, **changes)  # pyright: ignore[reportArgumentType]


def mount(of: Volume, path: str = "/mnt") -> VolumeMount:
    return VolumeMount(of.id, of.name, path, read_only=True)


async def add(store: Store, *rows: Volume) -> None:
    for row in rows:
        await store.add_volume(row, QUOTA)
        await store.mark_volume_ready(row.id)


class VolumeStoreSuite:
    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture(autouse=True)
    async def projects(self, store: Store) -> None:
        await store.add_project(PROJECT)
        await store.add_project(OTHER)

    async def test_a_volume_is_seen_when_it_is_ready(self, store: Store) -> None:
        row = volume(1)
        await store.add_volume(row, QUOTA)
        await store.add_volume(row, QUOTA)  # a retry
        assert await store.volume(row.id) is None
        assert await store.named_volume(PROJECT.id, row.name) is None
        assert await store.volumes(PROJECT.id) == []
        assert await store.unfinished_volumes(HOME.id) == [row]
        assert await store.unfinished_volumes(AWAY.id) == []
        await store.mark_volume_ready(row.id)
        ready = replace(row, ready=True)
        assert await store.volume(row.id) == ready
        assert await store.named_volume(PROJECT.id, row.name) == ready
        assert await store.named_volume(OTHER.id, row.name) is None
        assert await store.volumes(PROJECT.id) == [ready]
        assert await store.volumes(OTHER.id) == []
        assert await store.unfinished_volumes(HOME.id) == []

    async def test_names_are_taken_within_the_project_also_by_what_is_not_ready(self, store: Store) -> None:
        await store.add_volume(volume(1), QUOTA)
        await add(store, volume(2, OTHER, name="name-1"))
        with pytest.raises(AlreadyExists):
            await store.add_volume(volume(3, name="name-1"), QUOTA)

    async def test_quotas_of_number_and_size_hold_also_at_once(self, store: Store) -> None:
        for quota in (ProjectLimits(volumes=3, volume_mb=MANY), ProjectLimits(volumes=MANY, volume_mb=35)):
            rows = [volume(number) for number in range(6)]
            done = await asyncio.gather(*(store.add_volume(row, quota) for row in rows), return_exceptions=True)
            assert sum(isinstance(one, LimitReached) for one in done) == 3
            await store.add_volume(volume(9, OTHER), quota)
            for row in (*rows, volume(9)):
                await store.forget_volume(row.id)

    async def test_removal_waits_for_every_live_sandbox(self, store: Store) -> None:
        row, other = volume(1), volume(2)
        await add(store, row, other)
        awake, asleep, gone = [sandbox(number, volumes=(mount(other, "/o"), mount(row))) for number in range(3)]
        for one in (awake, asleep, gone, sandbox(3, volumes=(mount(other),)), sandbox(4)):
            await store.add_sandbox(one, MANY)
        await store.claim_pause(asleep.id, Pause("c1", PauseKind.MEMORY, PauseCause.OWNER, T0))
        await store.mark_paused(asleep.id, 1)
        await store.mark_gone(gone.id, EndReason.KILLED, T0)
        assert await store.claim_volume_removal(row.id) == [awake.id, asleep.id]
        assert await store.volume(row.id) is not None
        for one in (awake, asleep):
            await store.mark_gone(one.id, EndReason.KILLED, T0)
        assert await store.claim_volume_removal(row.id) == []
        assert await store.volume(row.id) is None
        assert [one.id for one in await store.unfinished_volumes(HOME.id)] == [row.id]
        await store.forget_volume(row.id)
        await store.forget_volume(row.id)
        assert await store.unfinished_volumes(HOME.id) == []
        assert await store.claim_volume_removal(row.id) == []

    async def test_of_a_removal_and_a_create_at_once_one_wins(self, store: Store) -> None:
        for number in range(5):
            row, one = volume(number), sandbox(number, volumes=(mount(volume(number)),))
            await add(store, row)
            users, added = await asyncio.gather(
                store.claim_volume_removal(row.id), store.add_sandbox(one, MANY), return_exceptions=True
            )
            if users == []:
                assert isinstance(added, VolumeNotFound)
            else:
                assert (users, added) == ([one.id], True)

    async def test_a_sandbox_gets_no_volume_that_is_not_there_or_another_s(self, store: Store) -> None:
        await store.add_volume(volume(1), QUOTA)
        await add(store, volume(2, OTHER))
        for wrong in (volume(1), volume(2, OTHER), volume(3)):
            with pytest.raises(VolumeNotFound):
                await store.add_sandbox(sandbox(1, volumes=(mount(wrong),)), MANY)
        assert await store.sandbox(PROJECT.id, sandbox(1).id) is None

    async def test_sandboxes_and_snapshots_keep_what_they_mount(self, store: Store) -> None:
        await add(store, volume(1), volume(2))
        mounts = mount(volume(1), "/a"), replace(mount(volume(2), "/b"), read_only=False)
        await store.add_sandbox(sandbox(1, volumes=mounts), MANY)
        found = await store.sandbox(PROJECT.id, sandbox(1).id)
        assert found is not None
        assert found.volumes == mounts
        moved = await store.move(found.id, frozenset({State.RUNNING}), State.KILLING)
        assert moved is not None
        assert moved.volumes == mounts
        kept = snapshot(1, volumes=mounts)
        await store.add_snapshot(kept)
        assert await store.snapshot(PROJECT.id, kept.id) == kept
