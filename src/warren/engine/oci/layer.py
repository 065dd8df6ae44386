"""The writable layer of a sandbox under crun as a file: where it lies, and how it is copied while it is mounted."""

import os
from pathlib import Path

from warren.engine.oci import libc, loop
from warren.engine.oci.rootfs import LAYER_ATTRIBUTES, LAYER_OPTIONS
from warren.engine.oci.sparse import copy_data
from warren.model.errors import EngineFailed

SUFFIX = ".ext4"
SAVED = f"layer{SUFFIX}"
"""Its name in a checkpoint."""


def path_of(layers: Path, sandbox_id: str) -> Path:
    return layers / f"{sandbox_id}{SUFFIX}"


def clear(layers: Path, keep: set[str]) -> None:
    """Remove those of sandboxes that are no more: their servers had no time to."""
    for path in layers.glob(f"*{SUFFIX}"):
        if path.stem not in keep:
            path.unlink()


def copy(source: Path, target: Path) -> None:
    """Its data, not its holes; ids in it are those inside, so the copy serves any sandbox. Raises OSError."""
    with open(source, "rb", buffering=0) as old, open(target, "xb", buffering=0) as new:
        copy_data(old.fileno(), new.fileno())


def flush(layer: Path) -> None:
    """Bring what the mounted layer holds in memory into its file; nobody may be writing meanwhile.

    The sandbox's own mount cannot be asked: it is volatile, and lies in another mount namespace. A second mount of the
    device shows the same file system.
    """
    mount = libc.new_mount("ext4", _device(layer), LAYER_OPTIONS, LAYER_ATTRIBUTES)
    try:
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)
    try:
        libc.syncfs(root)
    finally:
        os.close(root)


def _device(layer: Path) -> str:
    device = loop.find(layer)
    if device is None:
        raise EngineFailed(
            f"cannot find the device of layer {layer}: the sandbox is gone, or an earlier version started it"
        )
    return device
