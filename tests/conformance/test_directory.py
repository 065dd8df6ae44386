"""Contract 3.4, 6.2.3: listing, making, moving and removing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from e2b import (
    AsyncSandbox,
    FileNotFoundException,
    FileType,
    InvalidArgumentException,
    NotFoundException,
    Sandbox,
)

from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SERVICE = "filesystem.Filesystem"


@pytest.fixture
def tree(folder: Path) -> Path:
    for name in ("b/deep/er", "a"):
        (folder / name).mkdir(parents=True)
    for name in ("b/deep/er/leaf", "b/x", "c", ".hidden"):
        (folder / name).write_text(name)
    return folder


def listed(wire: Wire, path: object, depth: int | None = None) -> list[str]:
    body = {"path": str(path)} if depth is None else {"path": str(path), "depth": depth}
    return [entry["path"] for entry in wire.ok(f"{SERVICE}/ListDir", body).get("entries", [])]


@pytest.mark.parametrize("depth", [None, 0, 1])
def test_list_is_one_level_in_lexical_order(wire: Wire, tree: Path, depth: int | None) -> None:
    assert listed(wire, tree, depth) == [f"{tree}/{name}" for name in (".hidden", "a", "b", "c")]


def test_list_depth_is_levels_of_a_lexical_walk(wire: Wire, tree: Path) -> None:
    two = [".hidden", "a", "b", "b/deep", "b/x", "c"]
    assert listed(wire, tree, 2) == [f"{tree}/{name}" for name in two]
    whole = [".hidden", "a", "b", "b/deep", "b/deep/er", "b/deep/er/leaf", "b/x", "c"]
    assert listed(wire, tree, 9) == [f"{tree}/{name}" for name in whole]
    assert listed(wire, tree, 4_294_967_295) == [f"{tree}/{name}" for name in whole]


def test_list_of_an_empty_folder_is_empty(wire: Wire, folder: Path) -> None:
    assert listed(wire, folder) == []


def test_list_keeps_the_prefix_that_was_asked_for(wire: Wire, tree: Path) -> None:
    (tree / "link").symlink_to("b")
    assert listed(wire, tree / "link") == [f"{tree}/link/deep", f"{tree}/link/x"]


def test_list_does_not_follow_links_inside(wire: Wire, tree: Path) -> None:
    (tree / "a/up").symlink_to(tree)
    assert [path for path in listed(wire, tree, 5) if "/up/" in path] == []


def test_list_of_missing_is_not_found_and_of_a_file_invalid(wire: Wire, sandbox: Sandbox, tree: Path) -> None:
    assert wire.refused(f"{SERVICE}/ListDir", {"path": f"{tree}/none"})[1] == "not_found"
    assert wire.refused(f"{SERVICE}/ListDir", {"path": f"{tree}/c"})[1] == "invalid_argument"
    with pytest.raises(FileNotFoundException):
        sandbox.files.list(f"{tree}/none")
    with pytest.raises(InvalidArgumentException):
        sandbox.files.list(f"{tree}/c")


def test_list_of_a_link_loop_is_failed_precondition(wire: Wire, folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    assert wire.refused(f"{SERVICE}/ListDir", {"path": f"{folder}/a"})[1] == "failed_precondition"


def test_list_through_the_client(sandbox: Sandbox, tree: Path) -> None:
    found = {entry.name: entry for entry in sandbox.files.list(str(tree))}
    assert found["a"].type == FileType.DIR
    assert (found["c"].type, found["c"].size, found["c"].path) == (FileType.FILE, 1, f"{tree}/c")


@pytest.mark.timeout(120)
def test_list_of_many_entries(wire: Wire, folder: Path) -> None:
    for i in range(10_000):
        (folder / f"{i:05}").touch()
    assert len(listed(wire, folder)) == 10_000


def test_list_of_a_deep_tree_does_no_harm(wire: Wire, folder: Path) -> None:
    path = folder
    for _ in range(200):
        path /= "d"
    path.mkdir(parents=True)
    assert len(listed(wire, folder, 1000)) == 200


def test_make_dir_makes_parents_for_the_user(wire: Wire, folder: Path) -> None:
    entry = wire.ok(f"{SERVICE}/MakeDir", {"path": f"{folder}/x/y/z"})["entry"]
    assert (entry["path"], entry["type"], entry["owner"]) == (f"{folder}/x/y/z", "FILE_TYPE_DIRECTORY", "user")
    for made in ("x", "x/y", "x/y/z"):
        found = (folder / made).stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o755, 1000, 1000)


def test_make_dir_leaves_existing_parents_alone(wire: Wire, folder: Path) -> None:
    (folder / "x").mkdir(mode=0o700)
    wire.ok(f"{SERVICE}/MakeDir", {"path": f"{folder}/x/y"})
    found = (folder / "x").stat()
    assert (found.st_mode & 0o7777, found.st_uid) == (0o700, 0)


def test_make_dir_again_is_already_exists_and_false(wire: Wire, sandbox: Sandbox, folder: Path) -> None:
    assert sandbox.files.make_dir(f"{folder}/x") is True
    assert sandbox.files.make_dir(f"{folder}/x") is False
    assert wire.refused(f"{SERVICE}/MakeDir", {"path": f"{folder}/x"})[:2] == (409, "already_exists")


def test_make_dir_over_a_file_is_invalid_and_through_one_internal(wire: Wire, folder: Path) -> None:
    (folder / "f").touch()
    assert wire.refused(f"{SERVICE}/MakeDir", {"path": f"{folder}/f"})[1] == "invalid_argument"
    assert wire.refused(f"{SERVICE}/MakeDir", {"path": f"{folder}/f/x"})[1] == "internal"


def test_move_renames_and_creates_parents(wire: Wire, sandbox: Sandbox, tree: Path) -> None:
    info = sandbox.files.rename(f"{tree}/c", f"{tree}/new/place/d")
    assert (info.path, info.name, info.type) == (f"{tree}/new/place/d", "d", FileType.FILE)
    assert not (tree / "c").exists()
    assert (tree / "new/place").stat().st_uid == 1000
    assert wire.ok(f"{SERVICE}/Move", {"source": f"{tree}/b", "destination": f"{tree}/e"})["entry"]["name"] == "e"
    assert (tree / "e/deep/er/leaf").exists()


def test_move_overwrites_a_file(sandbox: Sandbox, tree: Path) -> None:
    (tree / "target").write_text("old")
    sandbox.files.rename(f"{tree}/c", f"{tree}/target")
    assert (tree / "target").read_text() == "c"


def test_move_moves_a_link_itself(sandbox: Sandbox, tree: Path) -> None:
    (tree / "link").symlink_to("c")
    sandbox.files.rename(f"{tree}/link", f"{tree}/moved")
    assert os.readlink(tree / "moved") == "c"


def test_move_of_missing_is_not_found(wire: Wire, sandbox: Sandbox, tree: Path) -> None:
    body = {"source": f"{tree}/none", "destination": f"{tree}/x"}
    assert wire.refused(f"{SERVICE}/Move", body)[:2] == (404, "not_found")
    with pytest.raises(NotFoundException):
        sandbox.files.rename(f"{tree}/none", f"{tree}/x")


def test_move_that_rename_refuses_is_internal(wire: Wire, tree: Path) -> None:
    onto_full = {"source": f"{tree}/a", "destination": f"{tree}/b"}
    assert wire.refused(f"{SERVICE}/Move", onto_full)[1] == "internal"
    into_itself = {"source": f"{tree}/b", "destination": f"{tree}/b/inner"}
    assert wire.refused(f"{SERVICE}/Move", into_itself)[1] == "internal"


def test_move_across_disks_is_not_a_copy(wire: Wire, tree: Path) -> None:
    other = wire.daemon.folder / "small/x"
    assert wire.refused(f"{SERVICE}/Move", {"source": f"{tree}/c", "destination": str(other)})[1] == "internal"
    assert (tree / "c").exists()


def test_remove_takes_everything_below(sandbox: Sandbox, tree: Path) -> None:
    sandbox.files.remove(f"{tree}/b")
    sandbox.files.remove(f"{tree}/c")
    assert sorted(path.name for path in tree.iterdir()) == [".hidden", "a"]


def test_remove_of_missing_is_fine(wire: Wire, sandbox: Sandbox, folder: Path) -> None:
    assert wire.ok(f"{SERVICE}/Remove", {"path": f"{folder}/none"}) == {}
    sandbox.files.remove(f"{folder}/none")


def test_remove_takes_the_link_and_not_what_it_names(sandbox: Sandbox, tree: Path) -> None:
    (tree / "link").symlink_to("b")
    sandbox.files.remove(f"{tree}/link")
    assert not (tree / "link").is_symlink()
    assert (tree / "b/x").exists()


def test_remove_works_on_files_of_anybody(wire: Wire, tree: Path) -> None:
    (tree / "locked").mkdir(mode=0o500)
    wire.ok(f"{SERVICE}/Remove", {"path": f"{tree}/locked"}, user="nobody")
    assert not (tree / "locked").exists()


@pytest.mark.anyio
async def test_async_client_lists_makes_moves_and_removes(
    async_sandbox: Callable[[], AsyncSandbox], folder: Path
) -> None:
    files = async_sandbox().files
    assert await files.make_dir(f"{folder}/x/y") is True
    assert await files.make_dir(f"{folder}/x/y") is False
    assert (await files.rename(f"{folder}/x/y", f"{folder}/z")).path == f"{folder}/z"
    assert [entry.name for entry in await files.list(str(folder), depth=2)] == ["x", "z"]
    await files.remove(f"{folder}/x")
    assert [entry.name for entry in await files.list(str(folder))] == ["z"]
