"""Images baked of an image and a tree, seen through the kernel's own EROFS. Needs root, mkfs.erofs and loop devices."""

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.trees import record, tree
from warren.engine.oci import libc, loop
from warren.engine.oci.baking import Baking
from warren.engine.oci.command import run
from warren.model.errors import BuildFailed, NoSpace
from warren.model.template import TemplateImage

pytestmark = [
    pytest.mark.root,
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
]
EPOCH = 1_700_000_000
OLD_NS = 1_600_000_000_123_456_789
DISK_MB = 64


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def image(tmp_path: Path) -> TemplateImage:
    """An image with a file, a set-id program with a second name, and a folder that nobody will name."""
    root = tmp_path / "made"
    (root / "usr").mkdir(parents=True)
    (root / "gone").mkdir()
    (root / "gone" / "x").write_text("x")
    (root / "usr" / "file").write_text("image")
    (root / "usr" / "file").chmod(0o644)
    (root / "usr" / "file").with_name("sudo").write_text("sudo")
    (root / "usr" / "sudo").chmod(0o4755)
    for path in (root / "usr" / "file", root / "usr" / "sudo"):
        os.utime(path, ns=(OLD_NS, OLD_NS))
    target = tmp_path / "base.erofs"
    run("pack", ["mkfs.erofs", "--quiet", "-Enoinline_data", "-x-1", "--preserve-mtime", str(target), str(root)], 60)
    return TemplateImage("sha256:base", str(target))


@pytest.fixture
def baking(tmp_path: Path) -> Iterator[Baking]:
    (tmp_path / "blanks").mkdir()
    baking = Baking(tmp_path / "bakes", tmp_path / "blanks")
    baking.open()
    yield baking
    assert list((tmp_path / "bakes").iterdir()) == []
    assert left(tmp_path) == []


def left(place: Path) -> list[str]:
    """Mounts and loop devices over files of a folder; other tests of this machine have their own."""
    backing = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file") if path.exists()]
    return [line for line in [*Path("/proc/self/mounts").read_text().splitlines(), *backing] if str(place) in line]


async def pieces(content: bytes, size: int = 100) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def same(name: str, size: int, mode: int) -> bytes:
    return record("S", name, mode=mode, mtime=OLD_NS, size=size)


USUAL = tree(
    record("D", "new", uid=1000, gid=1000, mtime=(EPOCH + 50) * 10**9),
    record("F", "a", content=b"A" * 10_000, mode=0o640, mtime=(EPOCH + 99) * 10**9 + 5),
    record("H", "b", "new/a"),
    record("L", "c", "/etc/passwd", mtime=7),
    record("U"),
    record("D", "usr"),
    same("file", 5, 0o644),
    same("sudo", 4, 0o4755),
    record("U"),
)


@contextmanager
def shown(image: Path, place: Path) -> Iterator[Path]:
    device = loop.attach(image, read_only=True)
    mount = libc.new_mount("erofs", loop.device_path(device), ("ro",), libc.MOUNT_ATTR_RDONLY | libc.MOUNT_ATTR_NODEV)
    os.close(device)
    try:
        yield Path(f"/proc/self/fd/{mount}")
    finally:
        os.close(mount)


async def test_an_image_has_what_the_tree_says(baking: Baking, image: TemplateImage, tmp_path: Path) -> None:
    target = tmp_path / "image"
    digest = await baking.bake(image, pieces(USUAL), target, epoch=EPOCH, disk_mb=DISK_MB)
    assert digest.startswith("sha256:")
    with shown(target, tmp_path) as root:
        assert sorted(os.listdir(root)) == ["new", "usr"]
        assert (root / "usr" / "file").read_text() == "image"
        assert (root / "usr" / "sudo").stat().st_mode & 0o7777 == 0o4755
        assert (root / "usr" / "sudo").stat().st_mtime_ns == OLD_NS, "what was in the image keeps its time"
        made = (root / "new" / "a").stat()
        assert (made.st_nlink, made.st_mode & 0o7777, made.st_size) == (2, 0o640, 10_000)
        assert made.st_mtime_ns == (root / "new").stat().st_mtime_ns == EPOCH * 10**9
        assert (root / "new").stat().st_uid == 1000
        assert os.readlink(root / "new" / "c") == "/etc/passwd"
    with open(target, "rb") as file:
        assert struct.unpack("<Q", os.pread(file.fileno(), 8, 1024 + 24)) == (EPOCH,)


async def test_the_same_goes_in_the_same_comes_out(baking: Baking, image: TemplateImage, tmp_path: Path) -> None:
    later = USUAL.replace(struct.pack(">q", (EPOCH + 50) * 10**9), struct.pack(">q", (EPOCH + 5000) * 10**9))
    assert later != USUAL
    digests = [
        await baking.bake(image, pieces(content, size), tmp_path / f"i{size}", epoch=EPOCH, disk_mb=DISK_MB)
        for content, size in ((USUAL, 100), (later, 7777))
    ]
    assert digests[0] == digests[1]
    assert (tmp_path / "i100").read_bytes() == (tmp_path / "i7777").read_bytes()


@pytest.mark.threat("B8")
async def test_a_broken_tree_makes_no_image(baking: Baking, image: TemplateImage, tmp_path: Path) -> None:
    for content in (b"", USUAL[:-1], tree(record("F", "../x", content=b"x")), USUAL + bytes(10_000_000)):
        with pytest.raises(BuildFailed, match="cannot make an image of the files"):
            await baking.bake(image, pieces(content, 50_000), tmp_path / "image", epoch=EPOCH, disk_mb=DISK_MB)
    assert not (tmp_path / "image").exists()


@pytest.mark.threat("B8")
async def test_a_tree_that_is_too_large_is_refused(baking: Baking, image: TemplateImage, tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield record("D") + record("F", "big", size=1 << 50)
        while True:
            yield b"x" * 1_000_000

    with pytest.raises(NoSpace):
        await baking.bake(image, endless(), tmp_path / "image", epoch=EPOCH, disk_mb=DISK_MB)


async def test_a_cancelled_bake_leaves_nothing(baking: Baking, image: TemplateImage, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        yield record("D")
        begun.set()
        await asyncio.Event().wait()
        yield b""

    async with asyncio.TaskGroup() as group:
        bake = baking.bake(image, stalls(), tmp_path / "image", epoch=EPOCH, disk_mb=DISK_MB)
        task = group.create_task(bake)
        await begun.wait()
        task.cancel()


async def test_what_a_crash_left_is_cleared(baking: Baking, tmp_path: Path) -> None:
    (tmp_path / "bakes" / "old").mkdir()
    (tmp_path / "bakes" / "old" / "image").write_text("half")
    baking.open()
    assert list((tmp_path / "bakes").iterdir()) == []
