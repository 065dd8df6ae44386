"""OCI images that tests make themselves: layers out of lists of entries, archives and layouts out of layers."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from warren.images.manifest import ARCHITECTURES

ARCHITECTURE = ARCHITECTURES[os.uname().machine]
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
THEN = 1_700_000_000
"""The time of all files, in seconds since 1970."""


def entry(name: str, content: bytes | None = None, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A file where there is content, else a folder; `fields` of tarfile.TarInfo say otherwise."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    info.size, info.mtime, info.mode = len(content or b""), THEN, 0o755 if content is None else 0o644
    for field_name, value in fields.items():
        setattr(info, field_name, value)
    return info, content or b""


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, b"", type=tarfile.SYMTYPE, linkname=target)


def archive(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as made:
        for info, content in entries:
            made.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return stream.getvalue()


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


def zstd(content: bytes, *options: str) -> bytes:
    return subprocess.run(["zstd", "-qc", *options], input=content, capture_output=True, check=True).stdout


@dataclass
class Image:
    """`layers` are tar archives, uncompressed."""

    layers: Sequence[bytes]
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    architecture: str = ARCHITECTURE
    media_type: str = LAYER

    def layout(self, folder: Path, name: str = "image") -> Path:
        """An OCI layout."""
        blobs = folder / "blobs" / "sha256"
        blobs.mkdir(parents=True)

        def put(content: bytes) -> dict[str, Any]:
            digest = hashlib.sha256(content).hexdigest()
            (blobs / digest).write_bytes(content)
            return {"digest": f"sha256:{digest}", "size": len(content)}

        compress = zstd if self.media_type == ZSTD_LAYER else gzipped
        layers = [{"mediaType": self.media_type, **put(compress(each))} for each in self.layers]
        ids = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in self.layers]
        config = {
            "os": "linux",
            "architecture": self.architecture,
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": ids},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, **put(json.dumps(config).encode())},
            "layers": layers,
        }
        named = {"org.opencontainers.image.ref.name": name}
        index = {"mediaType": MANIFEST, **put(json.dumps(manifest).encode()), "annotations": named}
        (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [index]}))
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        return folder

    def archive(self, folder: Path) -> Path:
        """An OCI archive, as tools write it."""
        layout, file = self.layout(folder / "layout"), folder / "image.tar"
        with tarfile.open(file, "w") as made:
            made.add(layout, ".")
        return file
