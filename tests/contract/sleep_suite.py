"""What every engine must do with checkpoints and frozen sandboxes. Subclass `SleepSuite` like `EngineSuite`."""

from itertools import count

import pytest

from tests.contract.engine_suite import OnRig, Rig, new_id
from warren.contracts.engine import Restore
from warren.model.errors import CheckpointNotFound, CheckpointUnusable, NotSupported, SandboxChanging, SandboxNotFound
from warren.model.snapshot import SnapshotKind

_numbers = count(1)
FILES = SnapshotKind.FILESYSTEM


def new_checkpoint_id() -> str:
    return f"csuite{next(_numbers):015d}"


class SleepSuite(OnRig):
    def kind(self, rig: Rig) -> SnapshotKind:
        """The most that the runtime of this bench can keep."""
        return SnapshotKind.MEMORY if rig.engine.keeps_memory(rig.bench.runtime) else FILES

    async def listed(self, rig: Rig) -> set[str]:
        return {checkpoint.id for checkpoint in await rig.engine.checkpoints()}

    async def test_a_checkpoint_is_listed_with_what_it_is(self, rig: Rig) -> None:
        sandbox, name, kind = await rig.running(), new_checkpoint_id(), self.kind(rig)
        made = await rig.engine.checkpoint(sandbox, name, kind, hold=False)
        assert (made.id, made.sandbox_id, made.runtime, made.kind) == (name, sandbox, rig.bench.runtime, kind)
        assert made.bytes > 0
        assert bool(made.build) is (kind is SnapshotKind.MEMORY)
        assert list(await rig.engine.checkpoints()) == [made]
        assert await rig.ids() == {sandbox}

    async def test_one_checkpoint_starts_many_beside_its_source(self, rig: Rig) -> None:
        source, name, kind = await rig.running(), new_checkpoint_id(), self.kind(rig)
        await rig.engine.checkpoint(source, name, kind, hold=False)
        copies = [await rig.running(restore=Restore(name, kind)) for _ in range(2)]
        assert await rig.ids() == {source, *copies}

    async def test_a_held_sandbox_can_be_destroyed_and_comes_back_under_its_id(self, rig: Rig) -> None:
        spec, name, kind = rig.spec(), new_checkpoint_id(), self.kind(rig)
        await rig.engine.create(spec)
        await rig.engine.checkpoint(spec.id, name, kind, hold=True)
        await rig.engine.destroy(spec.id)
        assert await rig.ids() == set()
        back = rig.spec(restore=Restore(name, kind))
        await rig.engine.create(back)
        assert await rig.ids() == {back.id}

    async def test_a_held_sandbox_goes_on_when_thawed(self, rig: Rig) -> None:
        sandbox, name = await rig.running(), new_checkpoint_id()
        await rig.engine.checkpoint(sandbox, name, self.kind(rig), hold=True)
        await rig.engine.thaw(sandbox)
        await rig.engine.thaw(sandbox)
        await rig.engine.checkpoint(sandbox, new_checkpoint_id(), self.kind(rig), hold=False)
        assert await rig.ids() == {sandbox}

    async def test_a_sandbox_at_a_standstill_is_not_copied(self, rig: Rig) -> None:
        frozen, held = await rig.running(), await rig.running()
        await rig.engine.freeze(frozen)
        await rig.engine.checkpoint(held, name := new_checkpoint_id(), self.kind(rig), hold=True)
        for sandbox in (frozen, held):
            with pytest.raises(SandboxChanging, match="cannot"):
                await rig.engine.checkpoint(sandbox, new_checkpoint_id(), self.kind(rig), hold=False)
        assert await self.listed(rig) == {name}
        await rig.engine.thaw(frozen)
        await rig.engine.checkpoint(frozen, new_checkpoint_id(), self.kind(rig), hold=False)

    async def test_a_boot_on_files_is_possible_from_any_checkpoint(self, rig: Rig) -> None:
        sandbox, name = await rig.running(), new_checkpoint_id()
        await rig.engine.checkpoint(sandbox, name, self.kind(rig), hold=False)
        copy = await rig.running(restore=Restore(name, FILES))
        assert await rig.ids() == {sandbox, copy}

    async def test_files_alone_give_no_memory(self, rig: Rig) -> None:
        sandbox, name = await rig.running(), new_checkpoint_id()
        await rig.engine.checkpoint(sandbox, name, FILES, hold=False)
        with pytest.raises(CheckpointUnusable, match="cannot"):
            await rig.running(restore=Restore(name, SnapshotKind.MEMORY))
        assert await rig.ids() == {sandbox}
        assert await self.listed(rig) == {name}

    async def test_memory_that_a_runtime_cannot_keep_is_refused(self, rig: Rig) -> None:
        if rig.engine.keeps_memory(rig.bench.runtime):
            pytest.skip("this runtime keeps memory")
        sandbox = await rig.running()
        with pytest.raises(NotSupported, match="cannot"):
            await rig.engine.checkpoint(sandbox, new_checkpoint_id(), SnapshotKind.MEMORY, hold=False)
        assert await self.listed(rig) == set()

    async def test_what_is_forgotten_starts_nothing(self, rig: Rig) -> None:
        sandbox, name, kind = await rig.running(), new_checkpoint_id(), self.kind(rig)
        await rig.engine.checkpoint(sandbox, name, kind, hold=False)
        copy = await rig.running(restore=Restore(name, kind))
        await rig.engine.forget(name)
        await rig.engine.forget(name)
        assert await self.listed(rig) == set()
        assert await rig.ids() == {sandbox, copy}
        with pytest.raises(CheckpointNotFound):
            await rig.running(restore=Restore(name, kind))

    async def test_checkpoints_outlive_the_sandbox_and_the_engine(self, rig: Rig) -> None:
        sandbox, name, kind = await rig.running(), new_checkpoint_id(), self.kind(rig)
        made = await rig.engine.checkpoint(sandbox, name, kind, hold=True)
        await rig.engine.destroy(sandbox)
        await rig.engine.close()
        rig.engine = rig.bench.engine()
        await rig.engine.open()
        assert list(await rig.engine.checkpoints()) == [made]
        assert await rig.running(restore=Restore(name, kind))

    async def test_what_is_not_there_is_not_found(self, rig: Rig) -> None:
        with pytest.raises(SandboxNotFound):
            await rig.engine.checkpoint(new_id(), new_checkpoint_id(), self.kind(rig), hold=False)
        for call in (rig.engine.freeze, rig.engine.thaw, rig.engine.reclaim):
            with pytest.raises(SandboxNotFound):
                await call(new_id())

    async def test_a_frozen_sandbox_is_alive_and_can_be_thawed_or_destroyed(self, rig: Rig) -> None:
        sandbox = await rig.running()
        await rig.engine.freeze(sandbox)
        await rig.engine.freeze(sandbox)
        assert await rig.ids() == {sandbox}
        assert await rig.engine.reclaim(sandbox) >= 0
        await rig.engine.thaw(sandbox)
        await rig.engine.freeze(sandbox)
        await rig.engine.destroy(sandbox)
        assert await rig.ids() == set()

    async def test_a_new_engine_can_thaw_what_was_frozen(self, rig: Rig) -> None:
        sandbox = await rig.running()
        await rig.engine.freeze(sandbox)
        await rig.engine.close()
        rig.engine = rig.bench.engine()
        await rig.engine.open()
        assert await rig.ids() == {sandbox}
        await rig.engine.thaw(sandbox)
