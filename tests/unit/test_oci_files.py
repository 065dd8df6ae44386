"""Files that the engine keeps: guest copies, empty layers, locks."""

import os
import shutil
from pathlib import Path

import pytest

from warren.engine.oci import blank
from warren.engine.oci.blank import Blanks
from warren.engine.oci.places import Places, forget_guests, install_guest
from warren.engine.oci.process import ProcessId
from warren.model.errors import EngineFailed, Unavailable

needs_mkfs = pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="needs mkfs.ext4")


def test_a_guest_is_kept_by_its_digest_and_never_changed(tmp_path: Path) -> None:
    binary = tmp_path / "guestd"
    binary.write_bytes(b"one")
    guests = tmp_path / "guests"
    guests.mkdir()
    first = install_guest(str(binary), guests)
    binary.write_bytes(b"two")
    second = install_guest(str(binary), guests)
    assert first != second
    assert (first / "guestd").read_bytes() == b"one"
    assert os.stat(first / "guestd").st_mode & 0o777 == 0o555
    assert install_guest(str(binary), guests) == second
    forget_guests(guests, {first.name, second.name})
    assert sorted(guests.iterdir()) == sorted([first, second])
    forget_guests(guests, {second.name})
    assert list(guests.iterdir()) == [second]


def test_a_missing_guest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="cannot read guestd"):
        install_guest(str(tmp_path / "none"), tmp_path)


def test_a_place_has_one_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warren.engine.oci.places.RUN_ROOT", tmp_path / "run")
    places = Places(run=tmp_path / "run" / "warren0", state=tmp_path / "state")
    hold = places.lock()
    with pytest.raises(Unavailable, match="WARREN_STATE_DIR"):
        places.lock()
    with pytest.raises(Unavailable, match="WARREN_BRIDGE"):
        Places(run=places.run, state=tmp_path / "other").lock()
    hold.release()
    places.lock().release()
    assert not (tmp_path / "run" / "warren0.lock").exists()


@needs_mkfs
def test_a_layer_is_sparse_and_a_copy_of_its_own(tmp_path: Path) -> None:
    blanks = Blanks(tmp_path)
    one, two = tmp_path / "one", tmp_path / "two"
    blanks.copy(64, one)
    blanks.copy(64, two)
    assert one.stat().st_size == two.stat().st_size == 64 * 1024 * 1024
    assert one.stat().st_blocks * 512 < 4 * 1024 * 1024
    assert one.read_bytes() == two.read_bytes()
    with pytest.raises(FileExistsError):
        blanks.copy(64, one)


@needs_mkfs
def test_only_some_sizes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blank, "KEPT", 2)
    blanks = Blanks(tmp_path)
    for size in (64, 65, 66):
        blanks.copy(size, tmp_path / str(size))
    assert len(list(tmp_path.glob("*.ext4"))) == 2


def test_a_process_is_known_by_its_start() -> None:
    me = ProcessId.of(os.getpid())
    assert me is not None
    fd = me.open()
    assert fd is not None
    os.close(fd)
    assert ProcessId(me.pid, me.started + 1).open() is None
