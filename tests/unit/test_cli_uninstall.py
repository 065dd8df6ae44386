import io
from collections.abc import Callable
from pathlib import Path

import pytest

from warren.cli.app import EXIT_INTERRUPTED, run
from warren.cli.machine import LocalAccess, Machine
from warren.cli.uninstall import STATE_MARKS, removable
from warren.model.errors import BadRequest


def machine(folder: Path, *, is_root: bool = True) -> Machine:
    environ = {"WARREN_STATE_DIR": str(folder / "state"), "WARREN_CACHE_DIR": str(folder / "cache")}
    return Machine(environ, is_root=is_root, serve=lambda _: None, prepare=lambda _: LocalAccess("", Path()))


def plain(folder: Path) -> Path:
    folder.mkdir()
    (folder / "photos").touch()
    return folder


def link(folder: Path) -> Path:
    real = folder.with_name("real")
    (real / "audit").mkdir(parents=True)
    folder.symlink_to(real)
    return folder


def shallow(_: Path) -> Path:
    return Path("/etc")


@pytest.mark.parametrize("make", [plain, link, shallow])
def test_a_folder_that_is_not_ours_is_never_removed(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(BadRequest, match="cannot remove"):
        removable(make(tmp_path / "state"), STATE_MARKS)


def test_nothing_is_there_and_nothing_is_done(tmp_path: Path) -> None:
    assert run(["uninstall", "--yes"], machine(tmp_path)) == 0
    assert list(tmp_path.iterdir()) == []


def test_it_takes_root(tmp_path: Path) -> None:
    assert run(["uninstall", "--yes"], machine(tmp_path, is_root=False)) == 1


def test_without_yes_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache" / "bin").mkdir(parents=True)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert run(["uninstall"], machine(tmp_path)) == EXIT_INTERRUPTED
    assert (tmp_path / "cache" / "bin").exists()
