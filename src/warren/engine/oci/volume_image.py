"""A volume on the disk: a sparse ext4 image of a fixed size that nobody but this server has formatted or ever mounts.

    data/      what sandboxes see
    staging/   what is on its way in or out, see volume_tree.py

Unlike a sandbox's layer it has a journal: it outlives crashes of the machine.
"""

import contextlib
import os
import tempfile
from pathlib import Path

from warren import durable
from warren.engine.oci import libc, loop
from warren.engine.oci.command import run
from warren.engine.oci.loop import BLOCK_BYTES
from warren.engine.oci.volume_tree import DATA, STAGING
from warren.model.errors import EngineFailed

SUFFIX = ".ext4"
MKFS_DEADLINE_S = 120.0
BYTES_PER_INODE = 16_384
OWNER = 1000
"""Of the root of a new volume: `user` of the built-in templates. Everybody inside may write there."""
ROOT_MODE = 0o777
OPTIONS = ("discard", "noinit_itable", "minixdf", "errors=remount-ro")
"""Deleted blocks go back to the host; no background writes; `df` shows the promised size; what broke can be read."""
ATTRIBUTES = libc.MOUNT_ATTR_NODEV | libc.MOUNT_ATTR_NOSUID
"""Programs can be run from a volume inside sandboxes; on the host nobody but root gets to its folder."""


def make(image: Path, size_mb: int) -> None:
    """Whole under its name or not there. Raises EngineFailed, OSError."""
    with tempfile.TemporaryDirectory(dir=image.parent, prefix=".making-") as folder:
        draft, skeleton = Path(folder, "image"), Path(folder, "skeleton")
        skeleton.mkdir()
        (skeleton / DATA).mkdir()
        os.chown(skeleton / DATA, OWNER, OWNER)
        (skeleton / DATA).chmod(ROOT_MODE)
        (skeleton / STAGING).mkdir(mode=0o700)
        with open(draft, "xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(size_mb * 1024 * 1024)
        argv = ["mkfs.ext4", "-q", "-F", "-m0", f"-b{BLOCK_BYTES}", "-I256", f"-i{BYTES_PER_INODE}", f"-d{skeleton}"]
        argv += ["-O^resize_inode", "-Elazy_itable_init=1,nodiscard,root_owner=0:0", str(draft)]
        run("make a volume", argv, MKFS_DEADLINE_S)
        durable.flush([draft])
        draft.rename(image)
    durable.flush([image.parent])


def remove(image: Path) -> None:
    image.unlink(missing_ok=True)
    durable.flush([image.parent])


def mount(image: Path, target: Path) -> None:
    """Nothing if it is mounted there. Raises EngineFailed."""
    if target.is_mount():
        return
    target.mkdir(mode=0o700, exist_ok=True)
    try:
        fresh = _open_file_system(image)
        try:
            libc.attach(fresh, str(target))
        finally:
            os.close(fresh)
    except OSError as error:
        raise EngineFailed(f"cannot mount volume {target.name}: {error.strerror}") from error


def unmount(target: Path) -> None:
    """Nothing if nothing is mounted there; whoever still has files open keeps them."""
    while target.is_mount():
        libc.umount(str(target))
    with contextlib.suppress(FileNotFoundError):
        target.rmdir()


def _open_file_system(image: Path) -> int:
    """A device that has the image already is used again, whoever holds it (a sandbox may): two devices over one image
    would be two file systems that destroy each other."""
    device = loop.reopen(image)
    if device is None:
        device = loop.attach(image, read_only=False)
    try:
        return libc.new_mount("ext4", loop.device_path(device), OPTIONS, ATTRIBUTES)
    finally:
        os.close(device)
