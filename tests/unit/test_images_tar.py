"""What a layer says, and what is refused before anything is unpacked."""

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.oci_image import archive, entry, link
from warren.images.job import judge
from warren.images.layer_check import LayersCheck
from warren.images.manifest import Compression, Layer
from warren.images.tar_stream import BadArchive, Entry, TarStream
from warren.model import limits


def read(data: bytes, step: int = 100_000) -> list[Entry]:
    stream, found = TarStream(), list[Entry]()
    for at in range(0, len(data), step):
        found += stream.feed(data[at : at + step])
    stream.end()
    return found


def check(*entries: tuple[tarfile.TarInfo, bytes]) -> LayersCheck:
    done = LayersCheck()
    for each in read(archive(*entries)):
        done.note(each)
    return done


FORMS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", [1, 7, 512, 100_000])
def test_entries_are_read_in_pieces_of_any_size(form: int, step: int) -> None:
    data = archive(
        entry("etc"), entry("etc/passwd", b"x" * 1300, uid=7, gid=8), link("bin", "usr/bin"), entry("z", b""), form=form
    )
    assert [(each.name, each.kind, each.size, each.uid, each.gid, each.link) for each in read(data, step)] == [
        ("etc/", "5", 0, 0, 0, ""),
        ("etc/passwd", "0", 1300, 7, 8, ""),
        ("bin", "2", 0, 0, 0, "usr/bin"),
        ("z", "0", 0, 0, 0, ""),
    ]


@pytest.mark.parametrize("form", FORMS[:2])
def test_long_names_and_large_numbers(form: int) -> None:
    name, target = "d/" * 60 + "ü" * 100, "t" * 300
    data = archive(entry(name, b"abc", uid=4_000_000), link("l", target), form=form)
    assert [(each.name, each.uid, each.link) for each in read(data)] == [(name, 4_000_000, ""), ("l", 0, target)]


def damaged(at: int, piece: bytes) -> bytes:
    data = bytearray(archive(entry("a", b"abc"), form=tarfile.USTAR_FORMAT))
    data[at : at + len(piece)] = piece
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        damaged(0, b"b"),
        damaged(124, b"zzz"),
        archive(entry("a", b"abc"))[:-10_000] + b"x",
        archive(entry("a", b"a" * 5000))[:3000],
        bytes(512),
        bytes(1024) + archive(entry("a", b"")),
    ],
    ids=["sum", "number", "torn", "short", "one zero block", "behind the end"],
)
def test_damaged_archives_are_refused(data: bytes) -> None:
    with pytest.raises(BadArchive):
        read(data)


def test_sparse_files_are_refused() -> None:
    made = entry("giant", b"")
    made[0].pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1" + "0" * 15}
    with pytest.raises(BadArchive, match="sparse"):
        check(made)
    with pytest.raises(BadArchive, match="kind"):
        check(entry("giant", b"", type=tarfile.GNUTYPE_SPARSE))


def test_an_ordinary_layer_passes() -> None:
    done = check(
        entry("./"),
        entry("./usr/bin/sudo", b"#!", mode=0o4755),
        entry("/etc/motd", b"hello"),
        entry("dev/null", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        entry("run/pipe", b"", type=tarfile.FIFOTYPE),
        link("var/run", "/run"),
        link("up", "../../etc"),
        entry("bin/sh", b"", type=tarfile.LNKTYPE, linkname="bin/busybox"),
        entry("old/.wh.file", b""),
        entry("old/.wh..wh..opq", b""),
        entry("max", b"", uid=limits.IMAGE_ID_MAX, gid=limits.IMAGE_ID_MAX),
    )
    assert (done.entries, done.bytes, done.newest) == (11, 7, 1_700_000_000)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (entry("../x", b""), "leads out"),
        (entry("a/../../x", b""), "leads out"),
        (entry("a/.wh..", b""), "takes away"),
        (entry("a/.wh.", b""), "takes away"),
        (entry("a/.wh...", b""), "takes away"),
        (entry("x", b"", type=tarfile.LNKTYPE, linkname="../../etc/shadow"), "leads out"),
        (link("x", ""), "symbolic link of 0"),
        (link("x", "t" * 5000), "symbolic link of 5000"),
        (entry("x", b"", type=tarfile.BLKTYPE, devmajor=8), "device node"),
        (entry("srv/dev/x", b"", type=tarfile.CHRTYPE), "device node"),
        (entry("x", b"", uid=limits.IMAGE_ID_MAX + 1), "belongs to 65536:0"),
        (entry("x", b"", gid=2**31), "belongs to"),
        (entry("x", b"", type=b"V"), "no image needs"),
        (entry("./", b""), "root is no folder"),
        (entry("n" * 256, b""), "no name"),
        (entry("d/" * (limits.IMAGE_PATH_DEPTH + 1)), "IMAGE_PATH_DEPTH"),
        (entry("/".join(["d" * 200] * 20)), "IMAGE_PATH_BYTES"),
    ],
)
def test_what_no_image_needs_is_refused(bad: tuple[tarfile.TarInfo, bytes], words: str) -> None:
    with pytest.raises(BadArchive, match=words):
        check(bad)


def test_count_and_size_have_limits() -> None:
    done = LayersCheck()
    plain = Entry("a", "0", 0, 0, 0, 0o644, 0, "")
    done.entries = limits.IMAGE_FILES - 1
    done.note(plain)
    with pytest.raises(BadArchive, match="IMAGE_FILES"):
        done.note(plain)
    with pytest.raises(BadArchive, match="IMAGE_BYTES"):
        LayersCheck().note(Entry("a", "0", limits.IMAGE_BYTES + 1, 0, 0, 0o644, 0, ""))
    with pytest.raises(BadArchive, match="IMAGE_BYTES"):
        LayersCheck().layer(limits.IMAGE_BYTES, limits.IMAGE_BYTES + 1)


def layer_file(folder: Path, data: bytes) -> tuple[Layer, Path]:
    file = folder / "layer"
    file.write_bytes(data)
    return Layer("sha256:" + "0" * 64, len(data), compression=Compression.GZIP), file


def test_a_bomb_is_found_while_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IMAGE_RATIO_FREE_BYTES", 1024 * 1024)
    bomb = gzip.compress(archive(entry("zeros", bytes(16 * 1024 * 1024))))
    with pytest.raises(BadArchive, match=r"layer 3: .*IMAGE_RATIO"):
        judge(*layer_file(tmp_path, bomb), 3, LayersCheck())


def test_layers_of_several_gzip_members_are_read_to_the_end(tmp_path: Path) -> None:
    data = archive(entry("a", b"abc"), entry("b", bytes(3_000_000)))
    done = LayersCheck()
    judge(*layer_file(tmp_path, gzip.compress(data[:700]) + gzip.compress(data[700:])), 1, done)
    assert (done.entries, done.bytes) == (2, 3_000_003)


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-20], lambda data: data + b"more", lambda _: b"", lambda _: b"\x1f\x8bnonsense"]
)
def test_damaged_compression_is_refused(spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="layer 1: "):
        judge(*layer_file(tmp_path, spoil(gzip.compress(archive(entry("a", b"x" * 5000))))), 1, LayersCheck())
