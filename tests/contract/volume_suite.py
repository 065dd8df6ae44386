"""What the volumes of every engine must do. Subclass `VolumeSuite` like `EngineSuite`."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.contract.engine_suite import Bench, Rig
from warren.contracts.volumes import Volumes
from warren.model import limits
from warren.model.errors import (
    AlreadyExists,
    BadRequest,
    NoSpace,
    PathNotFound,
    VolumeInUse,
    VolumeNotFound,
    WarrenError,
)
from warren.model.volume import Attributes, EntryType, VolumeMount

MIB = 1024 * 1024
SIZE_MB = 16
AS_IT_COMES = Attributes()
UNKNOWN = "v" + "0" * 20
_numbers = itertools.count(1)


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for one in content:
        yield one


async def broken(*content: bytes) -> AsyncIterator[bytes]:
    for one in content:
        yield one
    raise ConnectionResetError


async def put(volumes: Volumes, volume: str, path: str, content: bytes = b"x", *, force: bool = False) -> None:
    await volumes.write(volume, path, pieces(content), AS_IT_COMES, force=force)


async def get(volumes: Volumes, volume: str, path: str) -> bytes:
    return b"".join([chunk async for chunk in volumes.read(volume, path)])


async def names(volumes: Volumes, volume: str, path: str = "/", depth: int = 1) -> list[str]:
    return [entry.path for entry in await volumes.list(volume, path, depth)]


class VolumeSuite:
    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    async def rig(self, bench: Bench, anyio_backend: str) -> AsyncIterator[Rig]:
        rig = Rig(bench, bench.engine())
        await rig.engine.open()
        try:
            yield rig
        finally:
            for sandbox_id in rig.made:
                await rig.engine.destroy(sandbox_id)
            for volume_id in await rig.engine.volumes.volumes():
                await rig.engine.volumes.remove(volume_id)
            await rig.engine.close()
            assert bench.left_behind() == {}

    @pytest.fixture
    def volumes(self, rig: Rig) -> Volumes:
        return rig.engine.volumes

    @pytest.fixture
    async def volume(self, volumes: Volumes) -> str:
        volume_id = f"vsuite{next(_numbers):015d}"
        await volumes.make(volume_id, SIZE_MB)
        return volume_id

    async def test_a_new_volume_is_empty_and_open_to_all_inside(self, volumes: Volumes, volume: str) -> None:
        assert await names(volumes, volume) == []
        root = await volumes.stat(volume, "/")
        assert (root.name, root.type, root.mode) == ("/", EntryType.DIRECTORY, 0o777)
        assert await volumes.volumes() == [volume]
        with pytest.raises(AlreadyExists):
            await volumes.make(volume, SIZE_MB)

    async def test_an_unknown_volume_is_not_found_and_removed_at_once(self, volumes: Volumes) -> None:
        for unknown in (UNKNOWN, "../v", ""):
            with pytest.raises(VolumeNotFound):
                await volumes.stat(unknown, "/")
            with pytest.raises(VolumeNotFound):
                await put(volumes, unknown, "/x")
            with pytest.raises(VolumeNotFound):
                await get(volumes, unknown, "/x")
            await volumes.remove(unknown)

    async def test_a_removed_volume_is_gone_with_its_files(self, volumes: Volumes, volume: str) -> None:
        await put(volumes, volume, "/x")
        await volumes.remove(volume)
        assert await volumes.volumes() == []
        with pytest.raises(VolumeNotFound):
            await volumes.stat(volume, "/x")
        await volumes.make(volume, SIZE_MB)
        assert await names(volumes, volume) == []

    async def test_what_is_written_is_read_again(self, volumes: Volumes, volume: str) -> None:
        large = bytes(range(256)) * 4096 * 3 + b"end"
        made = await volumes.write(
            volume, "/file", pieces(large[:5], b"", large[5:]), Attributes(7, 8, 0o640), force=False
        )
        assert (made.name, made.type, made.size) == ("file", EntryType.FILE, len(large))
        assert (made.uid, made.gid, made.mode) == (7, 8, 0o640)
        assert await get(volumes, volume, "/file") == large
        await put(volumes, volume, "/empty", b"")
        assert await get(volumes, volume, "/empty") == b""

    async def test_a_file_belongs_to_who_has_its_directory(self, volumes: Volumes, volume: str) -> None:
        root = await volumes.stat(volume, "/")
        plain = await volumes.write(volume, "/a", pieces(), AS_IT_COMES, force=False)
        assert (plain.uid, plain.gid, plain.mode) == (root.uid, root.gid, 0o644)
        await volumes.make_dir(volume, "/d", Attributes(11, 12, 0o700), force=False)
        inner = await volumes.write(volume, "/d/new/b", pieces(), AS_IT_COMES, force=True)
        above = await volumes.stat(volume, "/d/new")
        assert {(one.uid, one.gid) for one in (inner, above)} == {(11, 12)}
        assert above.mode == 0o755

    async def test_overwriting_keeps_owner_and_mode_unless_told(self, volumes: Volumes, volume: str) -> None:
        await volumes.write(volume, "/a", pieces(b"old, and longer"), Attributes(7, 8, 0o600), force=False)
        same = await volumes.write(volume, "/a", pieces(b"new"), AS_IT_COMES, force=False)
        assert (same.uid, same.gid, same.mode, same.size) == (7, 8, 0o600, 3)
        other = await volumes.write(volume, "/a", pieces(b"newer"), Attributes(mode=0o644), force=True)
        assert (other.uid, other.mode) == (7, 0o644)
        assert await get(volumes, volume, "/a") == b"newer"

    async def test_a_broken_upload_changes_nothing(self, volumes: Volumes, volume: str) -> None:
        await put(volumes, volume, "/a", b"before")
        for path in ("/a", "/b"):
            with pytest.raises(ConnectionResetError):
                await volumes.write(volume, path, broken(b"half"), AS_IT_COMES, force=False)
        assert await names(volumes, volume) == ["/a"]
        assert await get(volumes, volume, "/a") == b"before"

    async def test_of_uploads_to_one_path_one_wins_whole(self, volumes: Volumes, volume: str) -> None:
        contents = [bytes([number]) * MIB for number in range(4)]
        await asyncio.gather(*(put(volumes, volume, "/a", content) for content in contents))
        assert await get(volumes, volume, "/a") in contents

    async def test_parents_are_made_only_when_asked_for(self, volumes: Volumes, volume: str) -> None:
        for do in (
            lambda force: volumes.write(volume, "/a/b/c", pieces(b"x"), AS_IT_COMES, force=force),
            lambda force: volumes.make_dir(volume, "/d/e/f", AS_IT_COMES, force=force),
        ):
            with pytest.raises(PathNotFound):
                await do(False)
            await do(True)
        assert await names(volumes, volume, depth=9) == ["/a", "/a/b", "/a/b/c", "/d", "/d/e", "/d/e/f"]
        deep = "/x" * (limits.VOLUME_DEPTH_MAX - 1)
        await volumes.make_dir(volume, deep, AS_IT_COMES, force=True)
        assert (await volumes.stat(volume, deep)).type is EntryType.DIRECTORY

    async def test_a_directory_that_exists_is_good_only_when_asked_for(self, volumes: Volumes, volume: str) -> None:
        await volumes.make_dir(volume, "/d", Attributes(mode=0o700), force=False)
        await put(volumes, volume, "/f")
        for path in ("/d", "/", "/f"):
            with pytest.raises(AlreadyExists):
                await volumes.make_dir(volume, path, AS_IT_COMES, force=False)
        assert (await volumes.make_dir(volume, "/d", AS_IT_COMES, force=True)).mode == 0o700
        with pytest.raises(AlreadyExists):
            await volumes.make_dir(volume, "/f", AS_IT_COMES, force=True)

    async def test_a_list_goes_as_deep_as_asked(self, volumes: Volumes, volume: str) -> None:
        for path in ("/a", "/d/b", "/d/e/c"):
            await put(volumes, volume, path, force=True)
        assert await names(volumes, volume) == ["/a", "/d"]
        assert await names(volumes, volume, "/d") == ["/d/b", "/d/e"]
        assert await names(volumes, volume, "/", 2) == ["/a", "/d", "/d/b", "/d/e"]
        assert await names(volumes, volume, "/d", 2) == ["/d/b", "/d/e", "/d/e/c"]
        with pytest.raises(PathNotFound):
            await names(volumes, volume, "/none")
        with pytest.raises(BadRequest):
            await names(volumes, volume, "/a")

    async def test_owner_and_mode_are_changed_one_by_one(self, volumes: Volumes, volume: str) -> None:
        await volumes.write(volume, "/a", pieces(b"x"), Attributes(1, 2, 0o600), force=False)
        assert (await volumes.change(volume, "/a", Attributes(uid=5))).uid == 5
        changed = await volumes.change(volume, "/a", Attributes(gid=6, mode=0o444))
        assert (changed.uid, changed.gid, changed.mode) == (5, 6, 0o444)
        assert replace(await volumes.stat(volume, "/a"), atime=changed.atime) == changed
        assert (await volumes.change(volume, "/", Attributes(mode=0o1777))).mode == 0o1777
        with pytest.raises(PathNotFound):
            await volumes.change(volume, "/none", Attributes(uid=5))

    async def test_deleting_takes_everything_below(self, volumes: Volumes, volume: str) -> None:
        for path in ("/d/a", "/d/e/b", "/dd"):
            await put(volumes, volume, path, force=True)
        await volumes.delete(volume, "/d")
        assert await names(volumes, volume, depth=9) == ["/dd"]
        await volumes.delete(volume, "/dd")
        with pytest.raises(PathNotFound):
            await volumes.delete(volume, "/dd")
        with pytest.raises(BadRequest):
            await volumes.delete(volume, "/")

    async def test_what_can_never_work_is_said_before_any_content_comes(self, volumes: Volumes, volume: str) -> None:
        await put(volumes, volume, "/f")
        await volumes.make_dir(volume, "/d", AS_IT_COMES, force=False)

        async def nobody() -> AsyncIterator[bytes]:
            raise AssertionError("the content was read")
            yield b""

        for path in ("/", "/d", "/f/x"):
            with pytest.raises(BadRequest):
                await volumes.write(volume, path, nobody(), AS_IT_COMES, force=False)
        with pytest.raises(PathNotFound):
            await volumes.write(volume, "/none/x", nobody(), AS_IT_COMES, force=False)
        for path in ("/", "/d", "/f/x"):
            with pytest.raises(BadRequest):
                await get(volumes, volume, path)
        with pytest.raises(PathNotFound):
            await get(volumes, volume, "/none")

    async def test_a_full_volume_says_so_loses_nothing_and_goes_on(self, volumes: Volumes, volume: str) -> None:
        await put(volumes, volume, "/kept", b"kept")

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(2 * SIZE_MB):
                yield b"x" * MIB

        with pytest.raises(NoSpace):
            await volumes.write(volume, "/kept", endless(), AS_IT_COMES, force=False)
        assert await names(volumes, volume) == ["/kept"]
        assert await get(volumes, volume, "/kept") == b"kept"
        await put(volumes, volume, "/more", b"x" * 4 * MIB)

    async def test_a_half_read_file_can_be_let_go(self, volumes: Volumes, volume: str) -> None:
        await put(volumes, volume, "/a", b"x" * 3 * MIB)
        reading = volumes.read(volume, "/a")
        assert await anext(reading) == b""
        assert await anext(reading)
        await reading.aclose()
        await volumes.delete(volume, "/a")

    async def test_a_volume_in_use_stays_until_its_sandboxes_are_gone(
        self, rig: Rig, volumes: Volumes, volume: str
    ) -> None:
        await put(volumes, volume, "/a", b"kept")
        mount = VolumeMount(volume, "name", "/mnt/shared")
        first, second = [await rig.running(volumes=(mount,)) for _ in range(2)]
        for sandbox_id in (first, second):
            with pytest.raises(VolumeInUse):
                await volumes.remove(volume)
            assert await get(volumes, volume, "/a") == b"kept"
            await rig.engine.destroy(sandbox_id)
        await volumes.remove(volume)

    async def test_a_sandbox_with_an_unknown_volume_leaves_nothing(
        self, rig: Rig, volumes: Volumes, volume: str
    ) -> None:
        mounts = VolumeMount(volume, "one", "/one"), VolumeMount(UNKNOWN, "two", "/two")
        with pytest.raises(VolumeNotFound):
            await rig.running(volumes=mounts)
        assert await rig.ids() == set()
        await volumes.remove(volume)

    async def test_volumes_and_who_has_them_outlive_the_server(self, rig: Rig, volume: str) -> None:
        await put(rig.engine.volumes, volume, "/a", b"kept")
        running = await rig.running(volumes=(VolumeMount(volume, "name", "/mnt"),))
        await rig.engine.close()
        rig.engine = rig.bench.engine()
        await rig.engine.open()
        with pytest.raises(VolumeInUse):
            await rig.engine.volumes.remove(volume)
        assert await get(rig.engine.volumes, volume, "/a") == b"kept"
        await rig.engine.destroy(running)
        await rig.engine.close()
        rig.engine = rig.bench.engine()
        await rig.engine.open()
        assert await get(rig.engine.volumes, volume, "/a") == b"kept"

    async def test_a_create_that_fails_gives_its_volumes_back(self, rig: Rig, volumes: Volumes, volume: str) -> None:
        mounts = (VolumeMount(volume, "name", "/mnt"),)
        with pytest.raises(WarrenError):
            await rig.running(volumes=mounts, image=replace(rig.bench.image, path=""))
        await volumes.remove(volume)
