"""Whatever a registry sends as a layer or a manifest: read as another reader reads it, or one known error."""

import io
import tarfile
from contextlib import suppress

import pytest

from tests.fuzz.corpus import fuzzed
from warren.images.layer_check import LayersCheck
from warren.images.manifest import BadImage, config_of, layers_of, platform_digest
from warren.images.tar_stream import BadArchive, Entry, TarStream
from warren.model import limits

pytestmark = pytest.mark.threat("A11")


def read(data: bytes, step: int) -> list[Entry] | None:
    stream, check, found = TarStream(), LayersCheck(), list[Entry]()
    try:
        for at in range(0, len(data), step):
            for entry in stream.feed(data[at : at + step]):
                check.note(entry)
                found.append(entry)
        stream.end()
    except BadArchive:
        return None
    return found


def as_python_reads(data: bytes) -> list[tuple[str, str, int, int]]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", errors="surrogateescape", encoding="utf-8") as other:
        return [(each.name.rstrip("/"), each.linkname, each.uid, each.gid) for each in other]


def resummed(data: bytes) -> bytes:
    """With check sums that are right again, or hardly a mutation would get past them."""
    whole = bytearray(data)
    for at in range(0, len(whole) - 511, 512):
        if whole[at + 257 : at + 262] == b"ustar":
            whole[at + 148 : at + 156] = b" " * 8
            whole[at + 148 : at + 156] = b"%06o\0 " % sum(whole[at : at + 512])
    return bytes(whole)


@fuzzed("layer", usual=200)
def test_a_layer(data: bytes) -> None:
    data = resummed(data)
    found = read(data, 7)
    assert found == read(data, len(data) or 1)
    if not found:
        return
    for entry in found:
        assert 0 <= entry.size <= limits.IMAGE_BYTES
        assert max(entry.uid, entry.gid) <= limits.IMAGE_ID_MAX
        assert ".." not in entry.name.split("/")
        assert entry.kind in "0123456"
    linked = [(each.name.rstrip("/"), each.link, each.uid, each.gid) for each in found]
    assert [each[0] for each in linked] == [each[0] for each in as_python_reads(data)]


@fuzzed("manifest", usual=100)
def test_a_manifest(data: bytes) -> None:
    with suppress(BadImage):
        assert len(layers_of(data)) <= limits.IMAGE_LAYERS
    with suppress(BadImage):
        chosen = platform_digest(data, "amd64")
        assert chosen is None or chosen.startswith("sha256:")
    with suppress(BadImage):
        config = config_of(data, "amd64")
        assert config.user.isprintable()
        assert "\0" not in config.workdir + "".join(config.envs) + "".join(config.envs.values())
