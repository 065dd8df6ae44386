"""A process of its own that makes one EROFS image: `python -m warren.engine.oci.baker IMAGE SCRATCH TARGET EPOCH UUID`.

It reads a tree (`tree.py`) from its standard input and lays it over IMAGE, in an overlay on SCRATCH, an empty ext4
file. All mounts are in its own namespace and go with it, however it ends. It says the digest, or why not.

    exit 0   the digest of what is now at TARGET
    exit 3   the tree is broken or breaks a limit: the sandbox's fault
    exit 4   the scratch file or the disk is full
    exit 1   anything else
"""

import errno
import hashlib
import os
import resource
import sys
from pathlib import Path

from warren.engine.oci import libc, loop
from warren.engine.oci.blank import UPPER, WORK
from warren.engine.oci.command import run
from warren.engine.oci.tree import BadTree, Planter
from warren.model import limits
from warren.model.errors import EngineFailed

BAD_TREE, FULL, FAILED = 3, 4, 1
NO_MEMORY_WORDS = f"that takes more than {limits.IMAGE_MEMORY_MB} MiB of memory (IMAGE_MEMORY_MB)"
NODEV = libc.MOUNT_ATTR_NODEV | libc.MOUNT_ATTR_NOATIME


def main(image: Path, scratch: Path, target: Path, epoch: int, uuid: str) -> int:
    libc.die_with_parent()
    Path("/proc/self/oom_score_adj").write_text("1000")  # should the machine run out of memory, this goes first
    memory = limits.IMAGE_MEMORY_MB * 1024**2
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWNET)
    libc.mount("none", "/", None, libc.MS_REC | libc.MS_PRIVATE)
    try:
        root = _mounted(image, scratch, scratch.parent)
        _plant(root, epoch)
        _pack(root, target, epoch, uuid)
    except BadTree as error:
        return _fail(BAD_TREE, str(error))
    except OSError as error:
        return _fail(FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else FAILED, str(error))
    except EngineFailed as error:
        return _fail(_code_of(error.message), error.message)
    except MemoryError:
        return _fail(BAD_TREE, NO_MEMORY_WORDS)
    with open(target, "rb") as file:
        os.fsync(file.fileno())
        sys.stdout.write(f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}\n")
    return 0


def _mounted(image: Path, scratch: Path, folder: Path) -> Path:
    lower, upper, root = (folder / name for name in ("lower", "layer", "root"))
    for place in (lower, upper, root):
        place.mkdir(mode=0o700)
    _mount("erofs", image, ("ro",), lower, read_only=True)
    _mount("ext4", scratch, ("noinit_itable",), upper, read_only=False)
    data = f"lowerdir={lower},upperdir={upper}/{UPPER},workdir={upper}/{WORK},volatile,redirect_dir=off,metacopy=off"
    libc.mount("overlay", str(root), "overlay", libc.MS_NODEV | libc.MS_NOATIME, data)
    return root


def _mount(kind: str, file: Path, options: tuple[str, ...], place: Path, *, read_only: bool) -> None:
    device = loop.attach(file, read_only=read_only)
    try:
        attributes = NODEV | (libc.MOUNT_ATTR_RDONLY if read_only else 0)
        mount = libc.new_mount(kind, loop.device_path(device), options, attributes)
    finally:
        os.close(device)
    try:
        libc.attach(mount, str(place))
    finally:
        os.close(mount)


def _plant(root: Path, epoch: int) -> None:
    os.umask(0)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        Planter(sys.stdin.buffer, fd, epoch).plant()
    finally:
        os.close(fd)


def _pack(root: Path, target: Path, epoch: int, uuid: str) -> None:
    # -x-1: gVisor cannot read a file that carries extended attributes on EROFS. The epoch becomes the time of making.
    options = ["--quiet", "-Enoinline_data", "-x-1", "--preserve-mtime", f"-U{uuid}"]
    argv = ["setpriv", "--pdeathsig=KILL", "mkfs.erofs", *options, str(target), str(root)]
    run("pack the image", argv, limits.BUILD_BAKE_DEADLINE_S, environment={"SOURCE_DATE_EPOCH": str(epoch)})


def _code_of(words: str) -> int:
    if "Cannot allocate memory" in words:
        sys.stderr.write(f"{NO_MEMORY_WORDS}: ")
        return BAD_TREE
    return FULL if "No space left" in words else FAILED


def _fail(code: int, words: str) -> int:
    sys.stderr.write(words + "\n")
    return code


if __name__ == "__main__":
    given_image, given_scratch, given_target, given_epoch, given_uuid = sys.argv[1:]
    sys.exit(main(Path(given_image), Path(given_scratch), Path(given_target), int(given_epoch), given_uuid))
