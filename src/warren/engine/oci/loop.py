"""Loop devices that clear themselves: each goes with the last mount or descriptor that uses it."""

import errno
import fcntl
import os
import struct
from pathlib import Path

from warren.model.errors import EngineFailed

LOOP_CTL_GET_FREE = 0x4C82
LOOP_GET_STATUS64 = 0x4C05
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
LO_FLAGS_DIRECT_IO = 16
BLOCK_BYTES = 4096
"""Of the device: what the file systems on it use, and what direct I/O on the file behind needs."""
INFO_BYTES = 232
FLAGS_OFFSET = 52
"""Of `lo_flags` in struct loop_info64."""
RESERVED_BYTES = 64
ATTEMPTS = 50
"""Another process may take the free device between the two calls; so often in a row it cannot."""


def attach(image: Path, *, read_only: bool) -> int:
    """A descriptor of a new loop device over `image`; the device lives until that and all mounts are closed."""
    mode = os.O_RDONLY if read_only else os.O_RDWR
    try:
        backing = os.open(image, mode | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise EngineFailed(f"cannot open {image}: {error.strerror}") from None
    try:
        for _ in range(ATTEMPTS):
            device = _attach_once(backing, mode, read_only=read_only)
            if device is not None:
                return device
    finally:
        os.close(backing)
    raise EngineFailed(f"cannot get a loop device for {image}: none stayed free; see /sys/module/loop")


def find(image: Path) -> str | None:
    """The device that has this file attached, by whoever; None when none has.

    Not by its path: whoever attached it may have been in a mount namespace that has let go of the file's disk by now,
    and then the kernel names it as if that disk were all there is.
    """
    try:
        wanted = image.stat()
    except FileNotFoundError:
        return None
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        device = f"/dev/{backing.parts[3]}"
        try:
            is_namesake = backing.read_text().rstrip("\n").endswith(f"/{image.name}")
            if is_namesake and _attached(device) == (wanted.st_dev, wanted.st_ino):
                return device
        except OSError:  # detached between the two looks
            continue
    return None


def _attached(device: str) -> tuple[int, int]:
    """Disk and inode of the file that a device shows."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = bytearray(INFO_BYTES)
        fcntl.ioctl(descriptor, LOOP_GET_STATUS64, status)
    finally:
        os.close(descriptor)
    disk, inode = struct.unpack_from("=QQ", status)
    return disk, inode


def reopen(image: Path) -> int | None:
    """A descriptor of the device that has this file attached; held open it cannot go away any more."""
    while (path := find(image)) is not None:
        device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if find(image) == path:
            return device
        os.close(device)  # it went away between the two calls, and may be another file's now
    return None


def device_path(device: int) -> str:
    return os.readlink(f"/proc/self/fd/{device}")


def _attach_once(backing: int, mode: int, *, read_only: bool) -> int | None:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    finally:
        os.close(control)
    device = os.open(f"/dev/loop{number}", mode | os.O_CLOEXEC)
    # A read-only image is shared: its pages are worth caching twice. A writable one is cached by its own file system.
    flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_READ_ONLY if read_only else LO_FLAGS_DIRECT_IO)
    info = bytearray(INFO_BYTES)
    struct.pack_into("=I", info, FLAGS_OFFSET, flags)
    try:
        fcntl.ioctl(
            device, LOOP_CONFIGURE, struct.pack("=II", backing, BLOCK_BYTES) + bytes(info) + bytes(RESERVED_BYTES)
        )
    except OSError as error:
        os.close(device)
        if error.errno == errno.EBUSY:
            return None
        raise
    return device
