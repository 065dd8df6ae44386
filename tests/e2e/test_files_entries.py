"""Directories, links, names: the file system as a client sees it."""

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from e2b import AsyncSandbox, EntryInfo, FileNotFoundException, FileType, InvalidArgumentException, Sandbox


@pytest.fixture
def folder(box: Sandbox) -> Iterator[str]:
    path = f"/home/user/entries-{secrets.token_hex(4)}"
    box.files.make_dir(path)
    yield path
    box.files.remove(path)


def names(entries: list[EntryInfo]) -> list[str]:
    return [entry.name for entry in entries]


@pytest.mark.covers("F05")
def test_a_list_goes_as_deep_as_asked(box: Sandbox, folder: str) -> None:
    box.commands.run("mkdir -p a/b/c; touch top a/one a/b/two a/b/c/three", cwd=folder)
    assert names(box.files.list(folder)) == ["a", "top"]
    assert names(box.files.list(folder, depth=2)) == ["a", "b", "one", "top"]
    assert names(box.files.list(folder, depth=4)) == ["a", "b", "c", "three", "two", "one", "top"]
    deepest = next(entry for entry in box.files.list(folder, depth=4) if entry.name == "three")
    assert (deepest.path, deepest.type) == (f"{folder}/a/b/c/three", FileType.FILE)


@pytest.mark.covers("F05", "C07")
def test_only_directories_that_exist_can_be_listed(box: Sandbox, folder: str) -> None:
    with pytest.raises(FileNotFoundException):
        box.files.list(f"{folder}/missing")
    box.files.write(f"{folder}/file", "x")
    with pytest.raises(InvalidArgumentException):
        box.files.list(f"{folder}/file")
    with pytest.raises(InvalidArgumentException):
        box.files.list(folder, depth=0)


@pytest.mark.covers("F05")
def test_a_linked_directory_is_listed_under_the_name_asked_for(box: Sandbox, folder: str) -> None:
    box.commands.run("mkdir real; touch real/inside; ln -s real link", cwd=folder)
    assert [entry.path for entry in box.files.list(f"{folder}/link")] == [f"{folder}/link/inside"]


@pytest.mark.covers("F06")
def test_the_info_of_a_file_is_complete(box: Sandbox, folder: str) -> None:
    box.files.write(f"{folder}/file", "12345")
    box.commands.run("chmod 640 file", cwd=folder)
    info = box.files.get_info(f"{folder}/file")
    assert (info.name, info.path, info.type, info.size) == ("file", f"{folder}/file", FileType.FILE, 5)
    assert (info.mode, info.permissions, info.owner, info.group) == (0o640, "-rw-r-----", "user", "user")
    assert abs((datetime.now(UTC) - info.modified_time).total_seconds()) < 60
    assert info.symlink_target is None
    assert box.files.get_info(folder).type is FileType.DIR


@pytest.mark.covers("F06")
def test_a_link_is_described_by_its_target(box: Sandbox, folder: str) -> None:
    box.commands.run(
        "echo hello > file; mkdir dir; ln -s file to-file; ln -s dir to-dir; ln -s nowhere broken", cwd=folder
    )
    to_file = box.files.get_info(f"{folder}/to-file")
    assert (to_file.type, to_file.symlink_target) == (FileType.FILE, f"{folder}/file")
    to_dir = box.files.get_info(f"{folder}/to-dir")
    assert (to_dir.type, to_dir.symlink_target) == (FileType.DIR, f"{folder}/dir")
    broken = box.files.get_info(f"{folder}/broken")
    assert broken.symlink_target is not None
    assert broken.mode == 0


@pytest.mark.covers("F06", "C07")
def test_the_info_of_nothing_is_not_found(box: Sandbox, folder: str) -> None:
    with pytest.raises(FileNotFoundException):
        box.files.get_info(f"{folder}/missing")


@pytest.mark.covers("F07")
def test_exists_tells_files_directories_and_nothing_apart(box: Sandbox, folder: str) -> None:
    box.files.write(f"{folder}/file", "x")
    assert box.files.exists(folder) is True
    assert box.files.exists(f"{folder}/file") is True
    assert box.files.exists(f"{folder}/missing") is False
    assert box.files.exists(f"{folder}/file/below") is False


@pytest.mark.covers("F08")
def test_directories_are_made_with_their_parents_once(box: Sandbox, folder: str) -> None:
    assert box.files.make_dir(f"{folder}/one/two/three") is True
    assert box.files.make_dir(f"{folder}/one/two/three") is False
    assert box.files.get_info(f"{folder}/one/two").owner == "user"
    assert box.files.get_info(f"{folder}/one").permissions == "drwxr-xr-x"


@pytest.mark.covers("F08", "C07")
def test_a_file_is_never_turned_into_a_directory(box: Sandbox, folder: str) -> None:
    box.files.write(f"{folder}/file", "x")
    with pytest.raises(InvalidArgumentException):
        box.files.make_dir(f"{folder}/file")


@pytest.mark.covers("F09")
def test_renaming_moves_makes_parents_and_overwrites(box: Sandbox, folder: str) -> None:
    box.files.write(f"{folder}/old", "content")
    box.files.write(f"{folder}/taken", "will be gone")
    moved = box.files.rename(f"{folder}/old", f"{folder}/deep/er/new")
    assert (moved.name, moved.path) == ("new", f"{folder}/deep/er/new")
    assert not box.files.exists(f"{folder}/old")
    box.files.rename(f"{folder}/deep/er/new", f"{folder}/taken")
    assert box.files.read(f"{folder}/taken") == "content"
    box.files.rename(f"{folder}/deep", f"{folder}/shallow")
    assert box.files.exists(f"{folder}/shallow/er")


@pytest.mark.covers("F09", "C07")
def test_nothing_cannot_be_renamed(box: Sandbox, folder: str) -> None:
    with pytest.raises(FileNotFoundException):
        box.files.rename(f"{folder}/missing", f"{folder}/new")


@pytest.mark.covers("F10")
def test_removing_takes_everything_below_and_is_idempotent(box: Sandbox, folder: str) -> None:
    box.files.write(f"{folder}/tree/branch/leaf", "x")
    box.files.write(f"{folder}/kept", "x")
    box.commands.run("ln -s ../kept tree/link", cwd=folder)
    box.files.remove(f"{folder}/tree")
    assert not box.files.exists(f"{folder}/tree")
    assert box.files.exists(f"{folder}/kept")
    box.files.remove(f"{folder}/tree")


@pytest.mark.anyio
@pytest.mark.covers("F05", "F06", "F07", "F08", "F09", "F10")
async def test_the_async_client_sees_the_same(box: Sandbox, folder: str) -> None:
    files = (await AsyncSandbox.connect(box.sandbox_id)).files
    assert await files.make_dir(f"{folder}/a/b") is True
    assert await files.make_dir(f"{folder}/a/b") is False
    await files.write(f"{folder}/a/file", "text")
    assert names(await files.list(folder, depth=2)) == ["a", "b", "file"]
    assert (await files.get_info(f"{folder}/a/file")).size == 4
    assert (await files.rename(f"{folder}/a/file", f"{folder}/z")).name == "z"
    assert await files.exists(f"{folder}/z")
    await files.remove(f"{folder}/z")
    assert not await files.exists(f"{folder}/z")
    with pytest.raises(FileNotFoundException):
        await files.list(f"{folder}/missing")
