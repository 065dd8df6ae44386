"""The system calls that Python has no names for."""

import contextlib
import ctypes
import os
import signal
import struct
from collections.abc import Generator
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_NOATIME = 0x400
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 4
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_IDMAP = 0x100000
IN_MODIFY = 2
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
MOVE_MOUNT_F_EMPTY_PATH = 4
OPEN_TREE_CLONE = 1
MOUNT_ATTR_NOSUID = 0x2
RENAME_NOREPLACE = 1
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# glibc has names for these from 2.36 on; the numbers are the same on every architecture.
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442


def unshare(flags: int) -> None:
    """Of the calling thread only."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Of the calling thread only."""
    _check(_libc.setns(fd, kind), "setns")


def die_with_parent() -> None:
    """The calling process is killed when the thread that started it ends."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl pdeathsig")


@contextlib.contextmanager
def file_ids(uid: int) -> Generator[None]:
    """Files that the calling thread makes meanwhile belong to `uid` and to the group of that number.

    It keeps its capabilities: the secure bit stops the kernel from dropping those over files with the change.
    """
    _check(_libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "prctl securebits")
    _libc.setfsgid(uid)
    _libc.setfsuid(uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)
        _check(_libc.prctl(PR_SET_SECUREBITS, 0, 0, 0, 0), "prctl securebits")


def inotify_of(path: Path) -> int:
    """A descriptor, for the caller to close, that becomes readable whenever `path` is written to."""
    fd = _check(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
    try:
        _check(_libc.inotify_add_watch(fd, os.fsencode(path), IN_MODIFY), f"inotify_add_watch {path}")
    except OSError:
        os.close(fd)
        raise
    return fd


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    result = _libc.mount(_text(source), _text(target), _text(kind), ctypes.c_ulong(flags), _text(data))
    _check(result, f"mount {target}")


def syncfs(fd: int) -> None:
    """Of the file system that the descriptor is on; its writes are done when this returns."""
    _check(_libc.syncfs(fd), "syncfs")


def umount(target: str) -> None:
    _check(_libc.umount2(_text(target), MNT_DETACH), f"umount {target}")


def new_mount(kind: str, source: str, options: tuple[str, ...], attributes: int) -> int:
    """A file system that is mounted nowhere yet, as a file descriptor that the caller closes."""
    context = _check(_libc.syscall(SYS_FSOPEN, _text(kind), FSOPEN_CLOEXEC), f"fsopen {kind}")
    try:
        _configure(context, FSCONFIG_SET_STRING, "source", source)
        for option in options:
            name, separator, value = option.partition("=")
            command = FSCONFIG_SET_STRING if separator else FSCONFIG_SET_FLAG
            _configure(context, command, name, value if separator else None)
        _configure(context, FSCONFIG_CMD_CREATE, None, None)
        return _check(_libc.syscall(SYS_FSMOUNT, context, FSMOUNT_CLOEXEC, attributes), f"fsmount {kind}")
    finally:
        os.close(context)


def clone_mount(path: str) -> int:
    """What is mounted at a directory, from that directory on, as a mount of its own that is attached nowhere yet."""
    return _check(_libc.syscall(SYS_OPEN_TREE, AT_FDCWD, _text(path), OPEN_TREE_CLONE | os.O_CLOEXEC), f"clone {path}")


def openat2(root: int, path: str, flags: int, resolve: int) -> int:
    """Open a path below a directory, as `resolve` allows it to be walked (openat2(2)); no file is made."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    return _check(_libc.syscall(SYS_OPENAT2, root, _text(path), how, ctypes.c_size_t(len(how))), "openat2")


def rename_to_nothing(source_dir: int, source: str, target_dir: int, target: str) -> None:
    """A rename that replaces nothing: FileExistsError instead."""
    result = _libc.renameat2(source_dir, _text(source), target_dir, _text(target), RENAME_NOREPLACE)
    _check(result, "renameat2")


def map_ids(mount_fd: int, user_namespace: int, more: int = 0) -> None:
    """Show the files of an unattached mount with the ids that a user namespace maps them to; `more`: attributes."""
    attributes = struct.pack("=QQQQ", MOUNT_ATTR_IDMAP | more, 0, 0, user_namespace)
    result = _libc.syscall(
        SYS_MOUNT_SETATTR, mount_fd, b"", AT_EMPTY_PATH, attributes, ctypes.c_size_t(len(attributes))
    )
    _check(result, "mount_setattr idmap")


def attach(mount_fd: int, target: str) -> None:
    result = _libc.syscall(SYS_MOVE_MOUNT, mount_fd, b"", AT_FDCWD, _text(target), MOVE_MOUNT_F_EMPTY_PATH)
    _check(result, f"move_mount {target}")


def _configure(context: int, command: int, name: str | None, value: str | None) -> None:
    result = _libc.syscall(SYS_FSCONFIG, context, command, _text(name), _text(value), 0)
    _check(result, f"fsconfig {name or 'create'} {value or ''}".strip())


def _text(value: str | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
