"""What becomes of a checkpoint's files: read with their holes, digested, sealed, refused when they changed."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from warren.contracts.engine import SandboxSpec
from warren.engine.oci.digest import digest_of
from warren.engine.oci.manifest import Manifest, Needs, Piece, obstacle
from warren.engine.oci.needs import cpu_flags
from warren.engine.oci.sealed import Damaged, FileCipher, Key, new_key
from warren.engine.oci.shelf import Shelf
from warren.engine.oci.sparse import CHUNK_BYTES, copy_data, data_chunks
from warren.model.errors import AlreadyExists, BadRequest, CheckpointNotFound, CheckpointUnusable
from warren.model.sandbox import Resources
from warren.model.snapshot import SnapshotKind
from warren.model.template import TemplateImage

NAME = "c" + "a" * 20
SIZE = Resources(1, 256, 128, 100)
MANIFEST = Manifest(
    NAME, "i" + "b" * 20, "runsc", SnapshotKind.MEMORY, "sha256:one", SIZE, "runsc-1", ("avx", "sse"), "guest"
)
SPEC = SandboxSpec("i" + "c" * 20, "runsc", TemplateImage("sha256:one", "/image"), "box", SIZE)
HERE = Needs("runsc-1", frozenset({"avx", "sse", "more"}))


@pytest.fixture
def holey(tmp_path: Path) -> Path:
    """Nine and a half chunks: data in the second, written zeros in the fourth, data at the very end."""
    path = tmp_path / "holey"
    with open(path, "wb") as file:
        file.truncate(9 * CHUNK_BYTES + CHUNK_BYTES // 2)
        file.seek(CHUNK_BYTES + 5)
        file.write(b"data")
        file.seek(3 * CHUNK_BYTES)
        file.write(bytes(CHUNK_BYTES))
        file.seek(-3, os.SEEK_END)
        file.write(b"end")
    return path


def test_a_copy_has_the_same_bytes_and_the_same_digest_without_the_holes(holey: Path, tmp_path: Path) -> None:
    with open(holey, "rb") as source, open(tmp_path / "copy", "w+b") as target:
        copy_data(source.fileno(), target.fileno())
        assert digest_of(source.fileno()) == digest_of(target.fileno())
        assert len(list(data_chunks(source.fileno()))) < 10
    assert (tmp_path / "copy").read_bytes() == holey.read_bytes()
    assert (tmp_path / "copy").stat().st_blocks <= holey.stat().st_blocks


def test_a_digest_does_not_depend_on_how_zeros_are_kept(holey: Path, tmp_path: Path) -> None:
    dense = tmp_path / "dense"
    dense.write_bytes(holey.read_bytes())
    with open(holey, "rb") as one, open(dense, "rb") as other:
        assert digest_of(one.fileno()) == digest_of(other.fileno())


@pytest.mark.parametrize("change", [lambda data: data + b"\0", lambda data: data[:-1], lambda data: b"x" + data[1:]])
def test_a_digest_tells_every_change(holey: Path, tmp_path: Path, change: object) -> None:
    (tmp_path / "other").write_bytes(change(holey.read_bytes()))  # type: ignore[operator]
    with open(holey, "rb") as one, open(tmp_path / "other", "rb") as other:
        assert digest_of(one.fileno()) != digest_of(other.fileno())


def unsealed(sealed: Path, cipher: FileCipher) -> bytes:
    target = sealed.with_name("unsealed")
    with open(sealed, "rb", buffering=0) as source, open(target, "w+b", buffering=0) as file:
        cipher.unseal(source.fileno(), file.fileno())
    return target.read_bytes()


def test_what_is_sealed_comes_back_and_says_nothing_before(holey: Path, tmp_path: Path) -> None:
    cipher, sealed = FileCipher(new_key(), 3, "memory/pages", holey.stat().st_size), tmp_path / "sealed"
    with open(holey, "rb") as source, open(sealed, "wb", buffering=0) as target:
        cipher.seal(source.fileno(), target.fileno())
    assert b"data" not in sealed.read_bytes()
    assert sealed.stat().st_size < 3 * CHUNK_BYTES
    assert unsealed(sealed, cipher) == holey.read_bytes()


@pytest.mark.threat("D6")
def test_a_sealed_file_that_changed_is_refused(holey: Path, tmp_path: Path) -> None:
    key, length, sealed = new_key(), holey.stat().st_size, tmp_path / "sealed"
    cipher = FileCipher(key, 3, "memory/pages", length)
    with open(holey, "rb") as source, open(sealed, "wb", buffering=0) as target:
        cipher.seal(source.fileno(), target.fileno())
    good = sealed.read_bytes()
    first = 12 + int.from_bytes(good[8:12], "big")
    for content in (
        good[:-1],
        good[: -24 - 12],
        good[first:],
        good + b"\0",
        good[:40] + bytes([good[40] ^ 1]) + good[41:],
        good[:8] + b"\xff" * 4 + good[12:],
        b"",
    ):
        sealed.write_bytes(content)
        with pytest.raises(Damaged):
            unsealed(sealed, cipher)
    sealed.write_bytes(good)
    for stranger in (
        FileCipher(new_key(), 3, "memory/pages", length),
        FileCipher(key, 4, "memory/pages", length),
        FileCipher(key, 3, "files/pages", length),
        FileCipher(key, 3, "memory/pages", length + 1),
    ):
        with pytest.raises(Damaged):
            unsealed(sealed, stranger)


def test_the_server_s_key_is_32_bytes_of_root_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for content, mode, words in ((b"short", 0o600, "32 random bytes"), (bytes(32), 0o640, "mode to 0600")):
        path.write_bytes(content)
        path.chmod(mode)
        with pytest.raises(BadRequest, match=words):
            Key.load(path)
    with pytest.raises(BadRequest, match="cannot read"):
        Key.load(tmp_path / "none")
    path.chmod(0o600)
    key, inner = Key.load(path), new_key()
    assert key.unwrap(key.wrap(inner, NAME), NAME) == inner
    for stranger, wrapped, name in (
        (Key(b"1" * 32), key.wrap(inner, NAME), NAME),
        (key, key.wrap(inner, NAME), "c" * 21),
        (key, "nonsense", NAME),
    ):
        with pytest.raises(Damaged):
            stranger.unwrap(wrapped, name)


@pytest.mark.parametrize(
    ("manifest", "spec", "kind", "words"),
    [
        (MANIFEST, SPEC, SnapshotKind.MEMORY, None),
        (MANIFEST, SPEC, SnapshotKind.FILESYSTEM, None),
        (replace(MANIFEST, build="runsc-0"), SPEC, SnapshotKind.FILESYSTEM, None),
        (replace(MANIFEST, build="runsc-0"), SPEC, SnapshotKind.MEMORY, "build runsc-0"),
        (replace(MANIFEST, cpu_flags=("avx", "warp")), SPEC, SnapshotKind.MEMORY, "processor with warp$"),
        (replace(MANIFEST, kind=SnapshotKind.FILESYSTEM), SPEC, SnapshotKind.MEMORY, "files alone"),
        (MANIFEST, replace(SPEC, runtime="crun"), SnapshotKind.FILESYSTEM, "runtime runsc"),
        (MANIFEST, replace(SPEC, image=TemplateImage("sha256:two", "/")), SnapshotKind.FILESYSTEM, "sha256:one"),
        (MANIFEST, replace(SPEC, resources=replace(SIZE, disk_mb=256)), SnapshotKind.FILESYSTEM, "128 MiB"),
        (MANIFEST, replace(SPEC, resources=replace(SIZE, memory_mb=128)), SnapshotKind.MEMORY, "256 MiB of memory"),
    ],
)
def test_a_checkpoint_says_what_stands_in_its_way(
    manifest: Manifest, spec: SandboxSpec, kind: SnapshotKind, words: str | None
) -> None:
    why = obstacle(manifest, spec, kind, HERE)
    assert why is None if words is None else re.search(words, why or "")


def test_a_manifest_comes_back_as_it_was() -> None:
    whole = replace(MANIFEST, pieces={"memory/pages.img": Piece(1, 2, "3")}, key="4")
    assert Manifest.from_json(whole.to_json()) == whole
    for text in ("", "[]", "{}", whole.to_json().replace('"version": 2', '"version": "2"'), whole.to_json()[:-9]):
        with pytest.raises(ValueError):
            Manifest.from_json(text)


FOREIGN_FILES = {"files/layer.img": {"length": 1, "on_disk": 2, "digest": "3", "holes": 4}}


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize(
    ("pieces", "kind", "words"),
    [
        (FOREIGN_FILES, SnapshotKind.FILESYSTEM, None),
        (FOREIGN_FILES, SnapshotKind.MEMORY, "another version of Warren wrote it$"),
        ({"files-in-colour/layer.img": {"length": 1, "on_disk": 2, "digest": "3"}}, SnapshotKind.FILESYSTEM, "form"),
        ({}, SnapshotKind.FILESYSTEM, "form"),
    ],
)
def test_of_another_version_s_manifest_the_files_can_be_used(
    version: int, pieces: dict[str, object], kind: SnapshotKind, words: str | None
) -> None:
    fields = json.loads(MANIFEST.to_json())
    fields["resources"]["colours"] = 3
    del fields["guest"]
    foreign = Manifest.from_json(json.dumps({**fields, "version": version, "pieces": pieces, "more": [1]}))
    why = obstacle(foreign, SPEC, kind, HERE)
    assert why is None if words is None else re.search(words, why or "")
    assert foreign.checkpoint.kind is SnapshotKind.FILESYSTEM


def test_processor_features_are_read_on_x86_and_on_arm(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags\t\t: sse avx\n\nflags\t\t: other\n")
    assert cpu_flags(info) == {"sse", "avx"}
    info.write_text("Features\t: fp asimd\n")
    assert cpu_flags(info) == {"fp", "asimd"}


def publish(shelf: Shelf, *, durable: bool = True) -> Manifest:
    """The files of NAME, one layer."""
    with shelf.draft(NAME, SnapshotKind.FILESYSTEM, 0) as draft:
        (draft.target / "files").mkdir()
        (draft.target / "files" / "layer").write_bytes(b"content")
        return shelf.publish(draft, replace(MANIFEST, kind=SnapshotKind.FILESYSTEM), durable=durable)


@pytest.mark.threat("D6")
def test_a_shelf_shows_what_was_published_and_clears_the_rest(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "checkpoints", None)
    shelf.open()
    publish(shelf)
    with pytest.raises(AlreadyExists), shelf.draft(NAME, SnapshotKind.FILESYSTEM, 0):
        pass
    with shelf.draft("c" + "z" * 20, SnapshotKind.FILESYSTEM, 0) as draft:
        (draft.target / "half").write_bytes(b"half")
    (manifest,), unread = shelf.all()
    assert unread == []
    (shelf.folder / ".left").mkdir()
    (shelf.folder / ("c" + "d" * 20)).mkdir()
    again = Shelf(shelf.folder, None)
    again.open()
    read, unread = again.all()
    assert (read, [one.id for one in unread]) == ([manifest], ["c" + "d" * 20])
    assert sorted(path.name for path in shelf.folder.iterdir()) == [NAME, "c" + "d" * 20]
    with again.reading(NAME) as found, again.part(found, SnapshotKind.FILESYSTEM) as part:
        assert (part / "layer").read_bytes() == b"content"
    with open(part / "layer", "ab") as still_open:
        again.forget(NAME)
        again.forget(NAME)
        assert os.fstat(still_open.fileno()).st_size == 0
    for name in (NAME, "../etc", "c" + "d" * 20):
        with pytest.raises(CheckpointNotFound):
            again.find(name)


def test_a_draft_is_measured_while_it_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, look = Shelf(tmp_path, None), os.scandir
    below = tmp_path / f".{NAME}" / "memory"
    below.mkdir(parents=True)
    (below.parent / "page").write_bytes(bytes(5000))
    size = (below.parent / "page").stat().st_blocks * 512
    assert shelf.written(NAME) == size > 0

    def scandir(path: str | Path) -> object:
        if Path(path) == below:
            below.rename(tmp_path / "gone")
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert shelf.written(NAME) == size
    assert not below.exists()
    assert shelf.written("c" + "n" * 20) == 0


def test_a_passing_checkpoint_serves_the_server_that_wrote_it_and_no_other(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "checkpoints", None)
    shelf.open()
    manifest = publish(shelf, durable=False)
    with shelf.part(manifest, SnapshotKind.FILESYSTEM) as part:
        assert (part / "layer").read_bytes() == b"content"
    next_server = Shelf(shelf.folder, None)
    next_server.open()
    with pytest.raises(CheckpointUnusable), next_server.part(manifest, SnapshotKind.FILESYSTEM):
        pass
    (part / "layer").write_bytes(b"changed")
    with pytest.raises(CheckpointUnusable), shelf.part(manifest, SnapshotKind.FILESYSTEM):
        pass


def test_a_sealed_checkpoint_wants_its_key(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "checkpoints", Key(b"k" * 32))
    shelf.open()
    with shelf.draft(NAME, SnapshotKind.FILESYSTEM, 0) as draft:
        (draft.target / "files").mkdir()
        (draft.target / "files" / "layer").write_bytes(b"content")
        manifest = shelf.publish(draft, replace(MANIFEST, kind=SnapshotKind.FILESYSTEM))
    assert [path.name for path in shelf.folder.iterdir()] == [NAME]
    with shelf.part(manifest, SnapshotKind.FILESYSTEM) as part:
        assert (part / "layer").read_bytes() == b"content"
    assert not part.exists()
    for key in (None, Key(b"o" * 32)):
        with (
            pytest.raises(CheckpointUnusable),
            Shelf(shelf.folder, key).part(manifest, SnapshotKind.FILESYSTEM),
        ):
            pass
