"""What registries say of an image: the index, the manifest of one platform, its configuration. Read as hostile JSON."""

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from warren.model import limits


class Compression(enum.Enum):
    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


ARCHITECTURES: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64"}
"""Names of machines (`uname -m`) as images call them."""
INDEXES = frozenset(
    ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
)
TAR = "application/vnd.oci.image.layer.v1.tar"
LAYERS: Mapping[str, Compression] = {
    TAR: Compression.NONE,
    f"{TAR}+gzip": Compression.GZIP,
    f"{TAR}+zstd": Compression.ZSTD,
    "application/vnd.docker.image.rootfs.diff.tar": Compression.NONE,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": Compression.GZIP,
}
"""Kinds of layers, and how they are compressed."""
USER_MAX = 256
"""Characters of the user that an image names."""


class BadImage(ValueError):
    """What is wrong with an image, in words that follow a colon."""


@dataclass(frozen=True, slots=True)
class Layer:
    digest: str
    size: int
    compression: Compression


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """Of all that an image says about how to run it, what a sandbox takes over."""

    user: str = ""
    workdir: str = ""
    envs: Mapping[str, str] = field(default_factory=dict[str, str])


def platform_digest(content: bytes, architecture: str) -> str | None:
    """The manifest for this machine out of an index; None where `content` is no index. Raises BadImage."""
    index = _document(content)
    if index.get("mediaType") not in INDEXES and "manifests" not in index:
        return None
    offered: list[str] = []
    for entry in _objects(index.get("manifests")):
        platform = _object(entry.get("platform"))
        if platform.get("os") == "linux" and platform.get("architecture") == architecture:
            return _digest(entry)
        offered.append(f"{platform.get('os')}/{platform.get('architecture')}")
    raise BadImage(f"it is not made for linux/{architecture}; there is {', '.join(offered)[:200] or 'nothing'}")


def layers_of(content: bytes) -> Sequence[Layer]:
    """Raises BadImage for layers of unknown kinds, too many, or too large ones."""
    manifest = _document(content)
    if "layers" not in manifest:
        raise BadImage("its manifest is of a kind that is no longer in use; push it again with a newer tool")
    layers: list[Layer] = []
    for entry in _objects(manifest["layers"]):
        kind, size = entry.get("mediaType"), entry.get("size")
        if kind not in LAYERS:
            raise BadImage(f"it has a layer of kind {str(kind)[:200]!r}; use tar, tar+gzip or tar+zstd")
        if not isinstance(size, int) or size < 0:
            raise BadImage("it has a layer without a size")
        layers.append(Layer(_digest(entry), size, LAYERS[cast("str", kind)]))
    if len(layers) > limits.IMAGE_LAYERS:
        raise BadImage(f"it has {len(layers)} layers, more than {limits.IMAGE_LAYERS} (IMAGE_LAYERS)")
    if sum(layer.size for layer in layers) > limits.IMAGE_COMPRESSED_BYTES:
        raise BadImage(f"its layers are larger than {limits.IMAGE_COMPRESSED_BYTES} bytes (IMAGE_COMPRESSED_BYTES)")
    return layers


def config_digest(content: bytes) -> str:
    return _digest(_object(_document(content).get("config")))


def config_of(content: bytes, architecture: str) -> ImageConfig:
    """Raises BadImage, also when the image is for another machine."""
    document = _document(content)
    made_for = (document.get("os"), document.get("architecture"))
    if made_for != ("linux", architecture):
        raise BadImage(f"it is made for {made_for[0]}/{made_for[1]}, and this machine is linux/{architecture}")
    config = _object(document.get("config") or {})
    user, workdir = config.get("User") or "", config.get("WorkingDir") or ""
    if not isinstance(user, str) or len(user) > USER_MAX or not user.isprintable():
        raise BadImage("it names a user that cannot be read")
    if not isinstance(workdir, str) or len(workdir) > limits.IMAGE_PATH_BYTES or "\0" in workdir:
        raise BadImage("it names a working directory that cannot be read")
    return ImageConfig(user.partition(":")[0], workdir, _environment(config.get("Env") or []))


def _environment(entries: object) -> Mapping[str, str]:
    if not isinstance(entries, list):
        raise BadImage("its environment cannot be read")
    found: dict[str, str] = {}
    for entry in cast("list[object]", entries):
        name, equals, value = entry.partition("=") if isinstance(entry, str) else ("", "", "")
        if not name or not equals or "\0" in value:
            raise BadImage("its environment cannot be read")
        found[name] = value
    size = sum(len(name.encode()) + len(value.encode()) for name, value in found.items())
    if len(found) > limits.MAX_ENV_ENTRIES or size > limits.MAX_ENV_BYTES:
        raise BadImage("its environment is too large (MAX_ENV_ENTRIES, MAX_ENV_BYTES)")
    return found


def _document(content: bytes) -> dict[str, Any]:
    if len(content) > limits.IMAGE_MANIFEST_BYTES:
        raise BadImage(f"its manifest is larger than {limits.IMAGE_MANIFEST_BYTES} bytes (IMAGE_MANIFEST_BYTES)")
    try:
        return _object(json.loads(content))
    except (ValueError, RecursionError):
        raise BadImage("its manifest cannot be read") from None


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadImage("its manifest cannot be read")
    return cast("dict[str, Any]", value)


def _objects(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise BadImage("its manifest cannot be read")
    return [_object(entry) for entry in cast("list[object]", value)]


def _digest(entry: Mapping[str, Any]) -> str:
    digest = entry.get("digest")
    text = digest.removeprefix("sha256:") if isinstance(digest, str) else ""
    if len(text) != 64 or text.strip("0123456789abcdef"):
        raise BadImage("its manifest names a digest that is not sha256")
    return f"sha256:{text}"
