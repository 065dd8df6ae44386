"""The root file system of a sandbox under crun, put together in the calling thread's own mount namespace.

    overlay (what the sandbox sees as /)
    ├── upper: its own ext4 image on a loop device, idmapped into its uid range
    └── lower: the template's EROFS image, shared, read-only, idmapped into the same range

On disk both keep the ids that the sandbox sees, so that a layer can be used again in another uid range.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from warren.engine.oci import libc, loop
from warren.engine.oci.blank import UPPER, WORK

HYBRID_CGROUP = "/sys/fs/cgroup/unified"
LAYER_OPTIONS = ("discard", "noinit_itable", "minixdf")
"""Deleted blocks go back to the host; no background writes; `df` shows the promised size."""
LAYER_ATTRIBUTES = libc.MOUNT_ATTR_NODEV | libc.MOUNT_ATTR_NOATIME


@dataclass(frozen=True, slots=True)
class Layers:
    """`image` is the block device of the template; `layer` an ext4 file; `user_namespace` a fd
    that maps root inside to `uid_base`."""

    image: str
    layer: Path
    user_namespace: int
    uid_base: int


def enter_private_mounts(*, hide_hybrid_cgroup: bool) -> None:
    """From here on the calling thread's mounts are its own, and go with the last process that it starts."""
    libc.unshare(libc.CLONE_NEWNS)
    libc.mount("none", "/", None, libc.MS_REC | libc.MS_PRIVATE)
    if hide_hybrid_cgroup:
        libc.umount(HYBRID_CGROUP)  # crun refuses to work beside it


def mount_root(layers: Layers, folder: Path) -> Path:
    """Mount all layers below `folder`; the path of the finished root."""
    lower, upper, root = (folder / name for name in ("lower", "layer", "root"))
    for place in (lower, upper, root):
        place.mkdir(mode=0o711)
    read_only = libc.MOUNT_ATTR_RDONLY | libc.MOUNT_ATTR_NODEV
    image = libc.new_mount("erofs", layers.image, ("ro",), read_only)
    _attach_idmapped(image, layers.user_namespace, lower)
    device = loop.attach(layers.layer, read_only=False)
    try:
        layer = libc.new_mount("ext4", loop.device_path(device), LAYER_OPTIONS, LAYER_ATTRIBUTES)
        _attach_idmapped(layer, layers.user_namespace, upper)
    finally:
        os.close(device)
    # Of a layer that was mounted before: the kernel's own scratch, with the mark that it was mounted volatile.
    shutil.rmtree(upper / WORK / WORK, ignore_errors=True)
    # volatile: no fsync reaches the disk. The layer dies with the machine's processes, so there is nothing to keep.
    # Names are relative, so that the sandbox's list of mounts says nothing of the host's folders.
    os.chdir(folder)
    # redirect_dir: a directory of the template can be renamed, as on any other file system.
    data = f"lowerdir={lower.name},upperdir={upper.name}/{UPPER},workdir={upper.name}/{WORK},volatile,redirect_dir=on"
    # overlayfs acts with the ids of who mounts it, and the host's root has no id in the idmapped layer.
    with libc.file_ids(layers.uid_base):
        libc.mount("overlay", str(root), "overlay", libc.MS_NODEV | libc.MS_NOATIME, data)
    return root


def show(source: Path, target: Path) -> Path:
    """Bind `source` where the sandbox's root may look it up: its real place is closed to all but the host's root."""
    target.mkdir(mode=0o711)
    libc.mount(str(source), str(target), None, libc.MS_BIND)
    return target


def show_idmapped(source: Path, target: Path, user_namespace: int, *, read_only: bool) -> None:
    """Like `show`, with the ids that the sandbox has."""
    target.mkdir(mode=0o711)
    more = libc.MOUNT_ATTR_RDONLY if read_only else 0
    _attach_idmapped(libc.clone_mount(str(source)), user_namespace, target, more)


def _attach_idmapped(mount: int, user_namespace: int, target: Path, more: int = 0) -> None:
    """Takes `mount` over: closed afterwards."""
    try:
        libc.map_ids(mount, user_namespace, more)
        libc.attach(mount, str(target))
    finally:
        os.close(mount)
