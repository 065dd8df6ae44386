"""Contract 3.4, 6.2.3: what a path means, and what is known about what lies there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from e2b import AsyncSandbox, FileNotFoundException, FileType, InvalidArgumentException, Sandbox, SandboxException

from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STAT = "filesystem.Filesystem/Stat"


def stat(wire: Wire, path: object, *, user: str | None = None) -> dict[str, object]:
    return wire.ok(STAT, {"path": str(path)}, user=user)["entry"]


def test_file_has_every_field(wire: Wire, folder: Path) -> None:
    path = folder / "näme"
    path.write_bytes(b"12345")
    path.chmod(0o640)
    os.chown(path, 1000, 2000)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert stat(wire, path) == {
        "name": "näme",
        "type": "FILE_TYPE_FILE",
        "path": str(path),
        "size": "5",
        "mode": 0o640,
        "permissions": "-rw-r-----",
        "owner": "user",
        "group": "crew",
        "modifiedTime": "2023-11-14T22:13:20Z",
    }


def test_directory_and_sticky_bit(wire: Wire, folder: Path) -> None:
    folder.chmod(0o755)
    entry = stat(wire, folder)
    assert (entry["type"], entry["mode"], entry["permissions"]) == ("FILE_TYPE_DIRECTORY", 0o755, "drwxr-xr-x")
    folder.chmod(0o1777)
    entry = stat(wire, folder)
    assert (entry["mode"], entry["permissions"]) == (0o777, "dtrwxrwxrwx")


def test_unknown_owner_and_group_are_numbers(wire: Wire, folder: Path) -> None:
    os.chown(folder, 4242, 4343)
    entry = stat(wire, folder)
    assert (entry["owner"], entry["group"]) == ("4242", "4343")


def test_link_shows_type_and_mode_of_its_final_target(wire: Wire, folder: Path) -> None:
    (folder / "real").write_bytes(b"123")
    (folder / "real").chmod(0o600)
    (folder / "middle").symlink_to("real")
    (folder / "link").symlink_to(folder / "middle")
    entry = stat(wire, folder / "link")
    assert (entry["name"], entry["path"]) == ("link", f"{folder}/link")
    assert (entry["type"], entry["mode"]) == ("FILE_TYPE_FILE", 0o600)
    assert entry["symlinkTarget"] == f"{folder}/real"
    assert entry["permissions"] == "Lrwxrwxrwx"
    assert "isSymlink" not in entry


def test_link_to_a_directory_is_a_directory(sandbox: Sandbox, folder: Path) -> None:
    (folder / "dir").mkdir()
    (folder / "link").symlink_to("dir")
    info = sandbox.files.get_info(f"{folder}/link")
    assert (info.type, info.symlink_target) == (FileType.DIR, f"{folder}/dir")


def test_broken_link_has_no_type_and_is_its_own_target(wire: Wire, folder: Path) -> None:
    (folder / "broken").symlink_to("/no/where")
    entry = stat(wire, folder / "broken")
    assert "type" not in entry
    assert "mode" not in entry
    assert entry["symlinkTarget"] == f"{folder}/broken"


def test_link_loop_is_like_a_broken_link(wire: Wire, folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    assert stat(wire, folder / "a")["symlinkTarget"] == f"{folder}/a"


def test_plain_file_has_no_link_target(sandbox: Sandbox, folder: Path) -> None:
    (folder / "f").touch()
    assert sandbox.files.get_info(f"{folder}/f").symlink_target is None


def test_special_files_have_no_type(wire: Wire, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    assert "type" not in stat(wire, folder / "fifo")
    assert "type" not in stat(wire, "/dev/null")


def test_missing_is_not_found(wire: Wire, sandbox: Sandbox, folder: Path) -> None:
    assert wire.refused(STAT, {"path": f"{folder}/none"})[:2] == (404, "not_found")
    assert sandbox.files.exists(f"{folder}/none") is False
    with pytest.raises(FileNotFoundException):
        sandbox.files.get_info(f"{folder}/none")


def test_exists_is_true_for_files_folders_and_links(sandbox: Sandbox, folder: Path) -> None:
    (folder / "f").touch()
    (folder / "l").symlink_to("/no/where")
    assert [sandbox.files.exists(f"{folder}{rest}") for rest in ("", "/f", "/l")] == [True] * 3


def test_empty_path_is_home_without_a_default_workdir(wire: Wire) -> None:
    assert stat(wire, "")["path"] == str(wire.daemon.home("user"))


def test_empty_path_is_the_default_workdir(fresh_wire: Wire, tmp_path: Path) -> None:
    fresh_wire.daemon.init(defaultWorkdir=str(tmp_path))
    assert stat(fresh_wire, "")["path"] == str(tmp_path)


@pytest.mark.parametrize("path", ["~", "~/", "."])
def test_tilde_and_dot_are_home(wire: Wire, path: str) -> None:
    assert stat(wire, path)["path"] == str(wire.daemon.home("user"))
    assert stat(wire, path, user="root")["path"] == str(wire.daemon.home("root"))


def test_relative_paths_begin_at_home_and_are_cleaned(wire: Wire) -> None:
    (wire.daemon.home("user") / "rel").touch()
    assert stat(wire, "x/..//./rel")["path"] == str(wire.daemon.home("user") / "rel")
    assert stat(wire, "~/rel")["path"] == str(wire.daemon.home("user") / "rel")


def test_anothers_home_is_an_error(wire: Wire, sandbox: Sandbox) -> None:
    assert wire.refused(STAT, {"path": "~root/x"})[:2] == (400, "invalid_argument")
    with pytest.raises(InvalidArgumentException):
        sandbox.files.get_info("~root")


def test_path_with_a_nul_byte_is_refused(wire: Wire) -> None:
    assert wire.refused(STAT, {"path": "/tmp/a\0b"})[0] == 400


def test_overlong_names_are_refused_and_do_no_harm(wire: Wire) -> None:
    assert wire.refused(STAT, {"path": "/" + "x" * 300})[0] >= 400
    assert wire.refused(STAT, {"path": "/x" * 5000})[0] >= 400


def test_unknown_user_is_unauthenticated(wire: Wire) -> None:
    response = wire.call(STAT, {"path": "/"}, user="ghost")
    assert response.status_code == 401
    assert response.json()["message"] == "invalid username: 'ghost'"


def test_work_is_done_as_root(wire: Wire, folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o700)
    (folder / "locked/secret").touch()
    assert stat(wire, folder / "locked/secret", user="nobody")["name"] == "secret"


def test_metadata_is_read_from_extended_attributes(wire: Wire, sandbox: Sandbox, folder: Path) -> None:
    (folder / "f").touch()
    os.setxattr(folder / "f", "user.e2b.color", b"blue")
    os.setxattr(folder / "f", "user.other", b"hidden")
    assert stat(wire, folder / "f")["metadata"] == {"color": "blue"}
    assert sandbox.files.get_info(f"{folder}/f").metadata == {"color": "blue"}


def test_odd_metadata_does_no_harm(wire: Wire, folder: Path) -> None:
    (folder / "f").touch()
    os.setxattr(folder / "f", "user.e2b.raw", b"\xff\xfe")
    os.setxattr(folder / "f", "user.e2b.empty", b"")
    assert stat(wire, folder / "f")["name"] == "f"


def test_names_that_are_not_utf8_do_no_harm(wire: Wire, folder: Path) -> None:
    os.close(os.open(os.fsencode(folder) + b"/bad\xff", os.O_CREAT | os.O_WRONLY))
    response = wire.call("filesystem.Filesystem/ListDir", {"path": str(folder), "depth": 1})
    assert response.status_code == 200, response.text
    assert wire.http.get("/health").status_code == 204


@pytest.mark.anyio
async def test_async_client_looks(async_sandbox: Callable[[], AsyncSandbox], folder: Path) -> None:
    files = async_sandbox().files
    (folder / "f").write_bytes(b"12")
    assert (await files.get_info(f"{folder}/f")).size == 2
    assert await files.exists(f"{folder}/none") is False
    with pytest.raises(SandboxException):
        await files.get_info(f"{folder}/none")
