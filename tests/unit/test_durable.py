"""Files in one step: whole or not there, private, first come first served where only one may win."""

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from warren import durable


def test_what_is_written_is_private_and_alone(tmp_path: Path) -> None:
    file = tmp_path / "key"
    durable.write(file, "secret\n")
    assert file.read_text() == "secret\n"
    assert stat.S_IMODE(file.stat().st_mode) == durable.PRIVATE
    assert os.listdir(tmp_path) == ["key"]


def test_a_wider_mode_has_to_be_asked_for_and_holds_whatever_was_there_before(tmp_path: Path) -> None:
    file = tmp_path / "certificate"
    durable.write(file, b"one")
    durable.write(file, b"two", 0o644)
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"two", 0o644)


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_what_breaks_off_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file = tmp_path / "key"
    durable.write(file, "old")
    monkeypatch.setattr(*{"fsync": (os, "fsync"), "rename": (Path, "rename")}[step], _failing)
    with pytest.raises(OSError, match="no"):
        durable.write(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["key"]


def test_what_ends_with_the_machine_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", _failing)
    durable.write(tmp_path / "record", "new", lasting=False)
    assert (tmp_path / "record").read_text() == "new"


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("untouched")
    (tmp_path / "key").symlink_to("elsewhere")
    durable.write(tmp_path / "key", "new")
    assert (tmp_path / "elsewhere").read_text() == "untouched"
    assert not (tmp_path / "key").is_symlink()


def test_of_many_who_write_once_all_get_what_the_first_wrote(tmp_path: Path) -> None:
    file = tmp_path / "seed"
    ask: Callable[[int], bytes] = lambda number: durable.write_once(file, f"{number}")  # noqa: E731
    with ThreadPoolExecutor(8) as askers:
        answers = set(askers.map(ask, range(40)))
    assert answers == {file.read_bytes()}
    assert os.listdir(tmp_path) == ["seed"]


def _failing(*_: object) -> None:
    raise OSError("no")
