"""What is done with one image inside its cell: ask, fetch, judge, unpack, make fit, pack."""

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, cast

from warren.images.erofs import pack_command, pack_environment
from warren.images.fitting import FIT, fit
from warren.images.layer_check import LayersCheck
from warren.images.manifest import (
    TAR,
    BadImage,
    Compression,
    ImageConfig,
    Layer,
    config_digest,
    config_of,
    layers_of,
    platform_digest,
)
from warren.images.tar_stream import BadArchive, TarStream
from warren.model import limits

WORK = Path("/work")
TREE = WORK / "tree"
LAYOUT = WORK / "layout"
AUTHFILE = WORK / "auth.json"
ARCHIVE = "archive"
"""As a source: the file of this name in the cell, from `docker save` or a tool that writes OCI archives."""
NAME = "image"
"""Of the image in the layout."""
PIECE_BYTES = 1024 * 1024
GZIP = 31
"""For zlib: a gzip header, and the largest window."""
ZSTD = "zstd"
NO_MEMORY = re.compile(
    rb"out of memory|cannot allocate memory|MemoryError|bad_alloc|pthread_create failed", re.IGNORECASE
)
"""What tools say that come to the limit of their memory."""
WORDS_MAX = 600
"""Characters of a tool's words that go into an error."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Say = Callable[[Mapping[str, object]], None]


class ToolFailed(Exception):
    """What a tool said when it gave up."""


class Job:
    """`order` is what the server asks for; `image` the descriptor that the finished file is written to."""

    def __init__(self, order: Mapping[str, str], image: int, proxy: str, say: Say, go_on: Callable[[], bool]) -> None:
        self._order, self._image, self._say, self._go_on = order, image, say, go_on
        self._plain: dict[str, dict[str, object]] = {}
        """Layers that were compressed with zstd, by their digest, as they are now."""
        addresses = {name: proxy for name in ("HTTP_PROXY", "HTTPS_PROXY")} if proxy else {}
        places = {"HOME": str(WORK), "TMPDIR": str(WORK), "XDG_RUNTIME_DIR": str(WORK)}
        self._environment = {"PATH": PATH, "LC_ALL": "C", **places, **addresses}

    def run(self) -> None:
        try:
            self._run()
        except (BadImage, BadArchive, ToolFailed) as error:
            self._say({"error": str(error)})
        except MemoryError:
            self._say({"error": self._out_of_memory()})
        except OSError as error:
            words = self._out_of_memory() if error.errno == errno.ENOMEM else str(error)
            self._say({"error": words, "errno": error.errno})

    def _run(self) -> None:
        AUTHFILE.write_text(self._order["credentials"])
        AUTHFILE.chmod(0o600)
        source, raw, digest = self._resolve()
        self._say({"digest": digest})
        if not self._go_on():
            return
        if raw:
            self._announce(layers_of(raw))
        self._skopeo("copy", "--quiet", "--format=oci", source, f"oci:{LAYOUT}:{NAME}")
        AUTHFILE.unlink()
        self._say({"fetched": True})
        config, layers = self._read_layout()
        check = LayersCheck()
        self._say({"say": f"checking {len(layers)} layers"})
        for number, layer in enumerate(layers, 1):
            if layer.compression is Compression.ZSTD:
                self._judge_and_copy(layer, number, check)
            else:
                judge(layer, _blob(layer.digest), number, check)
        self._put_plain_layers()
        self._say({"say": f"unpacking {check.entries} files, {check.bytes / 1e6:.0f} MB"})
        self._tool(["umoci", "raw", "unpack", f"--image={LAYOUT}:{NAME}", str(TREE)])
        shutil.rmtree(LAYOUT)
        with rooted(TREE):
            fit()
        pack = pack_command(TREE, f"/proc/self/fd/{self._image}", f"{digest} {FIT}")
        self._tool(pack, pack_environment(check.newest))
        self._say({"config": asdict(config)})

    def _resolve(self) -> tuple[str, bytes, str]:
        """Where to fetch from, by content if it can be; its manifest, b"" if that is not known before it is fetched;
        and what this machine's image is known by."""
        source, architecture = self._order["source"], self._order["architecture"]
        if source == ARCHIVE:
            source = f"{kind_of_archive(WORK / ARCHIVE)}:{WORK / ARCHIVE}"
        raw = self._inspect(source)
        chosen = platform_digest(raw, architecture)
        if chosen is not None and not self._order["by_content"]:
            return source, b"", chosen
        if chosen is not None:
            source = f"{self._order['by_content']}@{chosen}"
            raw = self._inspect(source)
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if chosen not in (None, digest):
            raise BadImage("the registry sends another manifest than the one that its index names")
        return source, raw, digest

    def _announce(self, layers: Sequence[Layer]) -> None:
        size = sum(layer.size for layer in layers)
        self._say({"say": f"fetching {len(layers)} layers, {size / 1e6:.0f} MB"})

    def _inspect(self, source: str) -> bytes:
        return self._skopeo("inspect", "--raw", source)

    def _skopeo(self, verb: str, *arguments: str) -> bytes:
        options = [
            "--insecure-policy",
            f"--tmpdir={WORK}",
            "--override-os=linux",
            f"--override-arch={self._order['architecture']}",
        ]
        return self._tool(["skopeo", *options, verb, f"--authfile={AUTHFILE}", "--retry-times=2", *arguments])

    def _tool(self, argv: Sequence[str], variables: Mapping[str, str] | None = None) -> bytes:
        done = subprocess.run(
            argv,
            env={**self._environment, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=[self._image],
            cwd=WORK,
            check=False,
        )
        if done.returncode == -signal.SIGKILL or (done.returncode and NO_MEMORY.search(done.stderr)):
            raise ToolFailed(f"{argv[0]}: {self._out_of_memory()}")
        if done.returncode != 0:
            raise ToolFailed(f"{argv[0]}: {_words(done.stderr or done.stdout) or f'exit {done.returncode}'}")
        return done.stdout

    def _judge_and_copy(self, layer: Layer, number: int, check: LayersCheck) -> None:
        """umoci does not know zstd: what has been judged is kept as it lies in the archive."""
        draft, digest = LAYOUT / "plain", hashlib.sha256()
        with draft.open("wb") as copy:

            def keep(piece: bytes) -> None:
                digest.update(piece)
                copy.write(piece)

            judge(layer, _blob(layer.digest), number, check, keep)
        plain = f"sha256:{digest.hexdigest()}"
        self._plain[layer.digest] = {"mediaType": TAR, "digest": plain, "size": draft.stat().st_size}
        draft.rename(_blob(plain))

    def _put_plain_layers(self) -> None:
        """Into the layout's manifest, in place of the compressed ones; umoci compares them with the configuration."""
        if not self._plain:
            return
        index = json.loads(_bounded(LAYOUT / "index.json"))
        manifest = json.loads(_bounded(_blob(index["manifests"][0]["digest"])))
        manifest["layers"] = [self._plain.get(layer["digest"], layer) for layer in manifest["layers"]]
        content = json.dumps(manifest).encode()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        _blob(digest).write_bytes(content)
        index["manifests"][0] |= {"digest": digest, "size": len(content)}
        (LAYOUT / "index.json").write_text(json.dumps(index))

    def _out_of_memory(self) -> str:
        return f"it takes more than {int(self._order['memory']) // 1024**2} MiB of memory (IMAGE_MEMORY_MB)"

    def _read_layout(self) -> tuple[ImageConfig, Sequence[Layer]]:
        index = json.loads(_bounded(LAYOUT / "index.json"))
        manifest = _bounded(_blob(index["manifests"][0]["digest"]))
        return config_of(_bounded(_blob(config_digest(manifest))), self._order["architecture"]), layers_of(manifest)


class rooted:  # reads like a function, as contextlib's do
    """This process sees `tree` as its root meanwhile."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree

    def __enter__(self) -> None:
        self._outside = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.chroot(self._tree)
        os.chdir("/")

    def __exit__(self, *_: object) -> None:
        os.fchdir(self._outside)
        os.chroot(".")
        os.close(self._outside)


def kind_of_archive(file: Path) -> str:
    """What skopeo calls it. Raises BadArchive."""
    stream, names = TarStream(), set[str]()
    with file.open("rb") as archive:
        while piece := archive.read(PIECE_BYTES):
            names.update(entry.name.removeprefix("./") for entry in stream.feed(piece))
    if "oci-layout" in names:
        return "oci-archive"
    if "manifest.json" in names:
        return "docker-archive"
    raise BadArchive("it is neither an OCI archive nor one of `docker save`")


def judge(
    layer: Layer, blob: Path, number: int, check: LayersCheck, keep: Callable[[bytes], object] = lambda _: None
) -> None:
    """Read a layer through; `keep` gets what has come out of it so far. Raises BadArchive that says which one it is."""
    stream, unpacked = TarStream(), 0
    try:
        with blob.open("rb") as file:
            if os.fstat(file.fileno()).st_size != layer.size:
                raise BadArchive("it is not as long as the manifest says")
            for piece in _READERS[layer.compression](file):
                unpacked += len(piece)
                check.layer(layer.size, unpacked)
                for entry in stream.feed(piece):
                    check.note(entry)
                keep(piece)
        stream.end()
    except BadArchive as error:
        raise BadArchive(f"layer {number}: {error}") from None


def _plain(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(PIECE_BYTES), b"")


def _gunzipped(file: BinaryIO) -> Iterator[bytes]:
    """Pieces of bounded size, whatever the compressed ones unpack to."""
    inflate = zlib.decompressobj(GZIP)
    rest = b""
    while data := rest or file.read(PIECE_BYTES):
        if inflate.eof:  # another member follows
            inflate = zlib.decompressobj(GZIP)
        try:
            yield inflate.decompress(data, PIECE_BYTES)
        except zlib.error:
            raise BadArchive("its compression is damaged") from None
        rest = inflate.unconsumed_tail or inflate.unused_data
    if not inflate.eof:
        yield inflate.flush()
    if not inflate.eof:
        raise BadArchive("its compression ends too early")


def _unzstd(file: BinaryIO) -> Iterator[bytes]:
    """By a process of its own, which stops at windows of 128 MiB."""
    if shutil.which(ZSTD, path=PATH) is None:
        raise BadArchive("it is compressed with zstd, and this server has no `zstd`: install it, or use tar+gzip")
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        [ZSTD, "-dcq"], env={"PATH": PATH}, stdin=file, stdout=subprocess.PIPE, stderr=quiet
    ) as child:
        try:
            yield from _plain(cast("BinaryIO", child.stdout))
            child.wait()
        finally:
            child.kill()  # whoever read it wants no more
    if child.returncode != 0:
        raise BadArchive("its compression is damaged, or takes too much memory")


_READERS: Mapping[Compression, Callable[[BinaryIO], Iterator[bytes]]] = {
    Compression.NONE: _plain,
    Compression.GZIP: _gunzipped,
    Compression.ZSTD: _unzstd,
}


def _blob(digest: str) -> Path:
    return LAYOUT / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _bounded(path: Path) -> bytes:
    if path.stat().st_size > limits.IMAGE_MANIFEST_BYTES:
        raise BadImage(f"its manifest is larger than {limits.IMAGE_MANIFEST_BYTES} bytes (IMAGE_MANIFEST_BYTES)")
    return path.read_bytes()


def _words(output: bytes) -> str:
    """The end of what a tool said, on one line: there it says why it gives up."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines)[-WORDS_MAX:]
