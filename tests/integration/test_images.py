"""Images as hostile data, through the real tools: what comes out is a root file system, or an error and no trace."""

import asyncio
import hashlib
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import leaks, oci_image
from tests.oci_image import THEN, ZSTD_LAYER, Image, archive, entry, link
from warren.contracts.building import FetchedImage
from warren.images.registries import parse_registries
from warren.images.source import OciImages
from warren.model import limits
from warren.model.errors import BuildFailed, NoSpace, WarrenError

pytestmark = [pytest.mark.root, pytest.mark.anyio, pytest.mark.timeout(240)]


GONE_S = 20.0


@dataclass
class Shop:
    """An image source of a test's own, and what it has adopted."""

    folder: Path
    said: list[str] = field(default_factory=list[str])
    adopted: dict[str, Path] = field(default_factory=dict[str, Path])

    def __post_init__(self) -> None:
        self.images = OciImages(
            self.folder / "images", parse_registries((), (), ()), adopt=self._adopt, use=self.adopted.__contains__
        )
        self.images.open()

    def _adopt(self, path: Path, digest: str) -> None:
        self.adopted[digest] = self.folder / digest
        os.link(path, self.adopted[digest])

    async def take_in(self, image: Image, name: str = "in") -> FetchedImage:
        folder = self.folder / name
        folder.mkdir()
        return await self.images.take_in(image.archive(folder), lambda _, text, __: self.said.append(text))

    @contextmanager
    def mounted(self, image: FetchedImage) -> Iterator[Path]:
        place = self.folder / "mounted"
        place.mkdir()
        subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro", self.adopted[image.digest], place], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    if os.geteuid() != 0:
        pytest.skip("cells need root")
    before = leaks.snapshot("no-bridge", tmp_path)
    yield Shop(tmp_path)
    async with asyncio.timeout(GONE_S):  # the kernel lets go of a loop device a little after the last mount
        while left := leaks.difference(before, leaks.snapshot("no-bridge", tmp_path)):
            await asyncio.sleep(0.05)
    assert not left
    assert [path.name for path in (tmp_path / "images").iterdir() if path.suffix != ".json"] == []


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


async def test_a_scratch_image_with_one_file(shop: Shop) -> None:
    made = Image([archive(entry("app", b"binary", mode=0o755))], {"User": "9:9", "Env": ["A=1"], "WorkingDir": "/w"})
    image = await shop.take_in(made)
    assert (image.user, image.workdir, image.envs) == ("9", "/w", {"A": "1"})
    assert image.digest == "sha256:" + hashlib.sha256(shop.adopted[image.digest].read_bytes()).hexdigest()
    with shop.mounted(image) as root:
        assert (root / "app").read_bytes() == b"binary"
        for place in (".warren", "dev/pts", "dev/shm", "dev/mqueue", "proc", "sys", "run", "root"):
            assert (root / place).is_dir(), place
        for place in ("tmp", "var/tmp"):
            assert stat.S_IMODE((root / place).stat().st_mode) == 0o1777
        assert lines(root / "etc/passwd") == [
            "root:x:0:0:root:/root:/bin/sh",
            "user::1000:1000:user:/home/user:/bin/sh",
        ]
        assert lines(root / "etc/group") == ["root:x:0:", "user:x:1000:"]
        home = (root / "home/user").stat()
        assert (home.st_uid, home.st_gid) == (1000, 1000)
        assert {int(path.lstat().st_mtime) for path in root.rglob("*")} == {THEN}
        assert not (root / "etc/sudoers.d").exists()


async def test_the_same_image_gives_the_same_bytes_and_is_unpacked_once(shop: Shop) -> None:
    made = Image([archive(*(entry(f"d{number}/f{number}", b"x" * number) for number in range(300)))])
    first = await shop.take_in(made)
    shop.said.clear()
    assert await shop.take_in(made, "again") == first
    assert "the image is here already" in shop.said
    other = Shop(shop.folder / "elsewhere")
    assert await other.take_in(made) == first


DEBIAN = (
    entry("etc/passwd", b"root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/bash\n"),
    entry("etc/group", b"root:x:0:\nsudo:x:27:op\nnode:x:1000:\n"),
    entry("etc/shadow", b"root:*:1:0:99999:7:::\n", mode=0o640, gid=42),
    entry("etc/sudoers", b"", mode=0o440),
    entry("etc/skel/.bashrc", b"PS1=x\n"),
    link("etc/skel/.profile", "/etc/shadow"),
    entry("bin/bash", b"#!", mode=0o755),
    entry("usr/bin/sudo", b"#!", mode=0o4755),
    entry("usr/local/lib"),
    entry("srv/odd", b"", uid=65_535, gid=33_333),
)


async def test_a_debian_like_image_gets_a_user_beside_its_own(shop: Shop) -> None:
    with shop.mounted(await shop.take_in(Image([archive(*DEBIAN)]))) as root:
        assert lines(root / "etc/passwd")[-1] == "user:x:1001:1001:user:/home/user:/bin/bash"
        assert lines(root / "etc/group") == ["root:x:0:", "sudo:x:27:op,user", "node:x:1000:", "user:x:1001:"]
        shadow = (root / "etc/shadow").stat()
        assert lines(root / "etc/shadow")[-1].startswith("user::")
        assert (stat.S_IMODE(shadow.st_mode), shadow.st_gid) == (0o640, 42)
        sudoers = root / "etc/sudoers.d/user"
        assert sudoers.read_text() == "user ALL=(ALL:ALL) NOPASSWD: ALL\n"
        assert stat.S_IMODE(sudoers.stat().st_mode) == 0o440
        assert stat.S_IMODE((root / "usr/bin/sudo").stat().st_mode) == 0o4755
        assert stat.S_IMODE((root / "usr/local/lib").stat().st_mode) == 0o777
        skeleton = root / "home/user/.bashrc"
        assert (skeleton.read_text(), skeleton.stat().st_uid) == ("PS1=x\n", 1001)
        assert not os.path.lexists(root / "home/user/.profile")
        odd = (root / "srv/odd").stat()
        assert (odd.st_uid, odd.st_gid) == (65_535, 33_333)


async def test_a_fedora_like_image_keeps_its_layout(shop: Shop) -> None:
    """A merged /usr, a shadow file that nobody may read, `wheel` in place of `sudo`, and a `user` of its own."""
    made = Image(
        [
            archive(
                *(link(name, f"usr/{name}") for name in ("bin", "sbin", "lib", "lib64")),
                entry("usr/bin/bash", b"#!", mode=0o755),
                entry("usr/lib64/libc.so.6", b"x"),
                entry("etc/passwd", b"root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/sbin/nologin\n"),
                entry("etc/group", b"root:x:0:\nwheel:x:10:\nuser:x:1000:\n"),
                entry("etc/shadow", b"root:!locked::0:99999:7:::\n", mode=0),
                entry("etc/sudoers", b"@includedir /etc/sudoers.d\n", mode=0o440),
                link("etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf"),
            )
        ]
    )
    with shop.mounted(await shop.take_in(made)) as root:
        assert [os.readlink(root / name) for name in ("bin", "lib64")] == ["usr/bin", "usr/lib64"]
        assert lines(root / "etc/passwd")[-1] == "user:x:1001:1000:user:/home/user:/bin/bash"
        assert lines(root / "etc/group") == ["root:x:0:", "wheel:x:10:user", "user:x:1000:"]
        assert stat.S_IMODE((root / "etc/shadow").stat().st_mode) == 0
        assert (root / "etc/sudoers.d/user").is_file()
        assert stat.S_ISREG((root / "etc/resolv.conf").lstat().st_mode)


async def test_links_in_place_of_accounts_lead_nowhere_else(shop: Shop) -> None:
    """Read where they lead inside the image; written as plain files."""
    made = Image(
        [
            archive(
                link("etc", "/usr/etc"),
                entry("usr/etc/here", b""),
                link("usr/etc/passwd", "/store/passwd"),
                entry("store/passwd", b"root:x:0:0::/root:/bin/ash\n"),
                link("usr/etc/group", "/etc/../../../../etc/passwd"),
                link("usr/etc/hosts", "/proc/self/mem"),
                link("dev", "/etc"),
                link("proc", "/work"),
                link("tmp", "/nowhere"),
                link("home", "../../../../../../root"),
            )
        ]
    )
    host = Path("/etc/passwd").read_bytes(), Path("/etc/hosts").read_bytes()
    with shop.mounted(await shop.take_in(made)) as root:
        etc = root / "usr/etc"
        assert lines(etc / "passwd") == ["root:x:0:0::/root:/bin/ash", "user::1000:1000:user:/home/user:/bin/sh"]
        for name in ("passwd", "group", "hosts"):
            assert stat.S_ISREG((etc / name).lstat().st_mode), name
        assert (root / "store/passwd").read_bytes() == b"root:x:0:0::/root:/bin/ash\n"
        for name in ("dev", "proc", "tmp"):
            assert stat.S_ISDIR((root / name).lstat().st_mode), name
    assert (Path("/etc/passwd").read_bytes(), Path("/etc/hosts").read_bytes()) == host


async def test_pipes_and_giants_in_place_of_accounts_do_not_hold_it_up(shop: Shop) -> None:
    made = Image(
        [
            archive(
                entry("etc/passwd", b"", type=tarfile.FIFOTYPE),
                entry("etc/group", b"x" * 5_000_000),
                entry("etc/shadow"),
                entry("etc/resolv.conf/inner", b""),
            )
        ]
    )
    with shop.mounted(await shop.take_in(made)) as root:
        assert lines(root / "etc/passwd")[0] == "root:x:0:0:root:/root:/bin/sh"
        assert lines(root / "etc/group") == ["root:x:0:", "user:x:1000:"]
        assert (root / "etc/resolv.conf").is_file()


async def test_later_layers_cover_earlier_ones(shop: Shop) -> None:
    layers = [
        archive(entry("keep", b"1"), entry("gone", b"1"), entry("cleared/old", b"1"), entry("swapped/x", b"1")),
        archive(entry(".wh.gone", b""), entry("cleared/.wh..wh..opq", b""), entry("cleared/new", b"2")),
        archive(entry("swapped", b"now a file")),
    ]
    with shop.mounted(await shop.take_in(Image(layers))) as root:
        assert (root / "keep").read_bytes() == b"1"
        assert not (root / "gone").exists()
        assert [path.name for path in (root / "cleared").iterdir()] == ["new"]
        assert (root / "swapped").read_bytes() == b"now a file"


async def test_writing_through_a_link_stays_inside(shop: Shop, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    made = Image([archive(link("out", str(victim)), link("up", "../../../../../../tmp")),
                  archive(entry("out/planted", b"x"), entry("up/planted", b"x"))])  # fmt: skip
    image = await shop.take_in(made)
    assert list(victim.iterdir()) == []
    assert not Path("/tmp/planted").exists()
    with shop.mounted(image) as root:
        assert (root / str(victim).lstrip("/") / "planted").read_bytes() == b"x"


async def test_attributes_and_devices_are_left_behind(shop: Shop) -> None:
    capable = entry("usr/bin/ping", b"#!", mode=0o755)
    capable[0].pax_headers = {
        "SCHILY.xattr.security.capability": "\x01\0\0\x02\0 \0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        "SCHILY.xattr.user.note": "x",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.security.selinux": "system_u:object_r:bin_t:s0",
    }
    made = Image([archive(capable, entry("dev/sda", b"", type=tarfile.BLKTYPE, devmajor=8), entry("dev/file", b"x"))])
    with shop.mounted(await shop.take_in(made)) as root:
        assert os.listxattr(root / "usr/bin/ping") == []
        assert sorted(path.name for path in (root / "dev").iterdir()) == ["mqueue", "pts", "shm"]


HOSTILE = {
    "traversal": ([entry("../../../../../../tmp/planted", b"x")], "leads out of its folder"),
    "hard link": ([entry("x", b"", type=tarfile.LNKTYPE, linkname="../../../etc/shadow")], "leads out of its folder"),
    "device": ([entry("disk", b"", type=tarfile.BLKTYPE, devmajor=8)], "'disk' is a device node"),
    "id": ([entry("far", b"", uid=1_000_810_000)], "belongs to 1000810000:0, and sandboxes have ids up to 65535"),
    "whiteout": ([entry("a/.wh...", b"")], "takes away a folder"),
    "deep": ([entry("d/" * 200)], "IMAGE_PATH_DEPTH"),
    "sparse": ([entry("giant", b"", type=tarfile.GNUTYPE_SPARSE)], "no image needs"),
    "bomb": ([entry("zeros", bytes(260 * 1024**2)), entry("more", bytes(10 * 1024**2))], "layer 1: .*IMAGE_RATIO"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.threat("A11")
async def test_hostile_layers_are_refused(name: str, shop: Shop) -> None:
    entries, words = HOSTILE[name]
    with pytest.raises(BuildFailed, match=f"cannot use image image.tar: .*{words}") as caught:
        await shop.take_in(Image([archive(*entries)]))
    assert caught.value.step == "base"
    assert shop.adopted == {}


async def test_images_for_other_machines_and_of_other_kinds_are_refused(shop: Shop) -> None:
    plain = archive(entry("a", b""))
    with pytest.raises(BuildFailed, match="made for linux/s390x"):
        await shop.take_in(Image([plain], architecture="s390x"), "machine")
    with pytest.raises(BuildFailed, match="layer of kind"):
        await shop.take_in(Image([plain], media_type="application/x-zip"), "kind")
    with pytest.raises(BuildFailed, match="more than 128"):
        await shop.take_in(Image([plain] * (limits.IMAGE_LAYERS + 1)), "layers")


async def test_what_is_no_archive_is_refused(shop: Shop) -> None:
    for name, content in (("text", b"hello"), ("empty", b""), ("other", archive(entry("a", b"")))):
        file = shop.folder / name
        file.write_bytes(content)
        with pytest.raises(WarrenError, match="cannot use image"):
            await shop.images.take_in(file, lambda *_: None)


async def test_a_full_disk_says_so(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warren.images.source.SPARE_BYTES", 2**60)
    with pytest.raises(NoSpace):
        await shop.take_in(Image([archive(entry("a", b""))]))


async def test_a_disk_that_fills_up_says_so(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    room = shutil.disk_usage(shop.folder).free
    monkeypatch.setattr("warren.images.source.SPARE_BYTES", room - 128 * 1024**2)
    with pytest.raises(NoSpace):
        await shop.take_in(Image([archive(entry("a", os.urandom(200 * 1024**2)))]))


async def test_an_abandoned_fetch_leaves_nothing(shop: Shop) -> None:
    task = asyncio.create_task(shop.take_in(Image([archive(entry("a", os.urandom(60 * 1024**2)))])))
    while not any(text.startswith("unpacking") for text in shop.said):
        await asyncio.sleep(0.01)
        assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shop.adopted == {}


async def test_layers_of_zstd_are_unpacked(shop: Shop) -> None:
    large = os.urandom(300_000)
    layers = [archive(entry("a", b"one"), entry("gone", b"x")), archive(entry("b", large), entry(".wh.gone", b""))]
    layers.append(archive(entry("a", b"two")))
    layers.append(layers[0])  # the same blob twice
    with shop.mounted(await shop.take_in(Image(layers, media_type=ZSTD_LAYER))) as root:
        seen = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}
    assert seen == {"a": b"one", "b": large, "gone": b"x"}


@pytest.mark.threat("B10")
async def test_a_bomb_of_zstd_a_damaged_layer_and_a_foreign_one_are_told(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = archive(entry("zeros", bytes(limits.IMAGE_RATIO_FREE_BYTES + 1024**2)))
    with pytest.raises(BuildFailed, match=r"layer 1: it unpacks to more than 100 times its size \(IMAGE_RATIO\)"):
        await shop.take_in(Image([bomb], media_type=ZSTD_LAYER), "bomb")
    good = Image([archive(entry("a", os.urandom(100_000)))], media_type=ZSTD_LAYER)
    compress = oci_image.zstd
    monkeypatch.setattr(oci_image, "zstd", lambda content: compress(content)[:-5])
    with pytest.raises(BuildFailed, match="layer 1: its compression is damaged"):
        await shop.take_in(good, "cut")
    monkeypatch.setattr(oci_image, "zstd", lambda content: compress(archive(entry("other", b"not what was named"))))
    with pytest.raises(BuildFailed, match="cannot use image"):
        await shop.take_in(good, "swapped")
    assert shop.adopted == {}


@pytest.mark.threat("B10")
async def test_an_image_that_takes_too_much_memory_to_pack_is_told_so(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "IMAGE_MEMORY_MB", 300)
    many = Image([archive(*(entry(f"f{number:06}", b"") for number in range(80_000)))])
    with pytest.raises(BuildFailed, match=r"mkfs\.erofs: it takes more than 300 MiB of memory \(IMAGE_MEMORY_MB\)"):
        await shop.take_in(many, "many")
    assert shop.adopted == {}
    await shop.take_in(Image([archive(entry("a", b"one"))]), "few")
