"""A tree out of a sandbox, laid over what an image has."""

import io
import os
import stat
from pathlib import Path

import pytest

from tests.unit.trees import record, tree
from warren.engine.oci.tree import HEAD, BadTree, Planter
from warren.model import limits

EPOCH = 1000
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What the image has: a file, a link, a folder with a file in it."""
    root = tmp_path / "root"
    (root / "dir" / "deep").mkdir(parents=True)
    (root / "dir" / "deep" / "old").write_text("old")
    (root / "file").write_text("image")
    os.utime(root / "file", ns=(5, 5))
    (root / "file").chmod(0o644)
    (root / "link").symlink_to("/etc/passwd")
    return root


def plant(root: Path, content: bytes) -> None:
    fd = os.open(root, os.O_RDONLY)
    try:
        Planter(io.BytesIO(content), fd, EPOCH).plant()
    finally:
        os.close(fd)


def same(name: str = "file", **changes: int) -> bytes:
    return record("S", name, **{"mode": 0o644, "mtime": 5, "size": 5, **changes})  # pyright: ignore[reportArgumentType]


def test_files_folders_and_links_are_made_as_told(root: Path) -> None:
    plant(
        root,
        tree(
            record("D", "dir", uid=7, gid=8, mode=0o1700, mtime=EPOCH * 10**9 + 1),
            record("F", "a", content=b"A" * 300_000, mode=0o4755, uid=1, gid=2, mtime=7),
            record("H", "b", "dir/a"),
            record("L", "c", "/etc/shadow", uid=3),
            record("P", "p", mode=0o600),
            record("U"),
            same(),
        ),
    )
    found = (root / "dir" / "a").stat()
    assert (found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns) == (stat.S_IFREG | 0o4755, 1, 2, 7)
    assert found.st_ino == (root / "dir" / "b").stat().st_ino
    assert (root / "dir" / "a").read_bytes() == b"A" * 300_000
    assert (os.readlink(root / "dir" / "c"), (root / "dir" / "c").lstat().st_uid) == ("/etc/shadow", 3)
    assert stat.S_ISFIFO((root / "dir" / "p").lstat().st_mode)
    folder = (root / "dir").stat()
    assert (folder.st_mode & 0o7777, folder.st_uid, folder.st_gid) == (0o1700, 7, 8)
    assert folder.st_mtime_ns == EPOCH * 10**9, "a time after the epoch becomes it"
    assert sorted(os.listdir(root)) == ["dir", "file"], "what is not named goes away"
    assert not (root / "dir" / "deep").exists()


def test_what_is_kept_stays_as_it_is(root: Path) -> None:
    plant(root, tree(record("K", "dir"), same(), record("L", "link", "/etc/passwd"), record("K", "new")))
    assert (root / "dir" / "deep" / "old").read_text() == "old"
    assert not (root / "new").exists()


def test_kinds_change_places(root: Path) -> None:
    plant(root, tree(record("F", "dir"), record("D", "file"), record("U"), record("D", "link"), record("U")))
    assert (root / "dir").is_file()
    assert (root / "file").is_dir()
    assert (root / "link").is_dir()
    assert not (root / "link").is_symlink()


def test_zeros_are_holes_and_sizes_are_kept(root: Path) -> None:
    plant(root, tree(record("F", "big", content=bytes(3_000_000))))
    found = (root / "big").stat()
    assert (found.st_size, found.st_blocks) == (3_000_000, 0)


@pytest.mark.parametrize(
    "changes", [{"size": 6}, {"mode": 0o600}, {"uid": 1}, {"gid": 1}, {"mtime": 6}], ids=lambda changes: str(changes)
)
def test_a_file_that_is_not_the_image_s_is_not_taken_for_it(root: Path, changes: dict[str, int]) -> None:
    with pytest.raises(BadTree, match="said to be the image's"):
        plant(root, tree(same(**changes)))
    with pytest.raises(BadTree, match="said to be the image's"):
        plant(root, tree(same("absent")))


@pytest.mark.threat("B8")
@pytest.mark.parametrize(
    "records",
    [
        (record("F", ".."),),
        (record("F", "."),),
        (record("F", ""),),
        (record("F", "a/b"),),
        (record("F", "/etc/passwd"),),
        (record("F", "a\0b"),),
        (record("F", "x" * 256),),
        (record("F", "b"), record("F", "a")),
        (record("F", "a"), record("F", "a")),
        (record("D", "a"), record("U"), record("U")),
        (record("H", "a", "../../etc/passwd"),),
        (record("H", "a", "/etc/passwd"),),
        (record("H", "a", ""),),
        (record("D", "a"), record("L", "l", "/etc"), record("U"), record("H", "b", "a/l/passwd")),
        (record("L", "a", "/etc"), record("H", "b", "a/passwd")),
        (record("L", "a", "/etc/passwd"), record("H", "b", "a")),
        (record("H", "b", "dir"),),
        (record("B", "disk"),),
        (record("F", "a", mode=0o170755),),
        (record("F", "a", uid=2**32 - 1),),
        (record("F", "a", size=10),),
    ],
)
def test_nothing_leads_out_and_nonsense_is_refused(root: Path, tmp_path: Path, records: tuple[bytes, ...]) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises((BadTree, OSError)):
        plant(root, tree(*records))
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        record("U"),
        record("D", "name"),
        record("D"),
        record("D") + record("U"),
        record("D") + record("F", "a")[:-1],
        tree()[:-1],
        tree() + b"x",
    ],
)
def test_a_stream_without_its_end_is_no_tree(root: Path, content: bytes) -> None:
    with pytest.raises(BadTree):
        plant(root, content)


@pytest.mark.threat("B8")
def test_depth_and_number_are_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUILD_TREE_DEPTH", 3)
    plant(root, tree(record("D", "a"), record("D", "b"), record("U"), record("U")))
    with pytest.raises(BadTree, match="deep"):
        plant(root, tree(record("D", "a"), record("D", "b"), record("D", "c")))
    monkeypatch.setattr(limits, "BUILD_TREE_ENTRIES", 3)
    with pytest.raises(BadTree, match="more than 3"):
        plant(root, tree(*(record("F", name) for name in "abcd")))


def test_the_head_is_what_guestd_writes() -> None:
    assert HEAD.size == 33
