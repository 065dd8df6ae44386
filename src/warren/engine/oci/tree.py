"""The tree of files that comes out of a sandbox at the end of a build, laid over the image that it began with.

It is written by guestd (`guestd/internal/build/tree.go`) and hostile. A folder's entries come between its own record
and UP, in order of their names, so a path never crosses the wire and nothing can lead out: each entry is made by its
name in the folder that is open. What the image has and the stream does not name goes away. Devices cannot be
named; set-id bits are kept, as sudo lives by them, and mean nothing outside of a sandbox.
"""

import contextlib
import os
import shutil
import stat
import struct
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import BinaryIO

from warren.model import limits

HEAD = struct.Struct(">cIIIqQHH")
"""Kind, mode, uid, gid, mtime in nanoseconds, size, lengths of name and target."""
ROOM = 256 * 1024
"""Bytes copied at once."""
MODE_BITS = 0o7777
NO_ID = 2**32 - 1
NAME_MAX = 255
SECOND = 10**9


class BadTree(Exception):
    """What was read is no whole tree, or breaks a limit."""


@dataclass(frozen=True, slots=True)
class Record:
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    name: bytes
    target: bytes


@dataclass(slots=True)
class _Folder:
    """One that is open. `others` are the image's names in it that the stream has not named yet."""

    fd: int
    record: Record
    others: set[bytes]
    last: bytes = b""


@dataclass(slots=True)
class Planter:
    """Makes the folder `root` what the stream says. Nobody else may change it meanwhile.

    Times after `epoch` become it: a build gives the same bytes whenever it runs.
    """

    source: BinaryIO
    root: int
    epoch: int
    _open: list[_Folder] = field(default_factory=list[_Folder])
    _entries: int = 0

    def plant(self) -> None:
        """Raises BadTree, OSError."""
        try:
            self._enter_root()
            while self._open:
                self._entries += 1
                if self._entries > limits.BUILD_TREE_ENTRIES:
                    raise BadTree(f"it has more than {limits.BUILD_TREE_ENTRIES} files and folders")
                self._take(_read_record(self.source))
            if _read_record(self.source).kind != b"E" or self.source.read(1):
                raise BadTree("it does not end where it should")
        finally:
            for folder in self._open:
                os.close(folder.fd)

    def _enter_root(self) -> None:
        record = _read_record(self.source)
        if record.kind != b"D" or record.name:
            raise BadTree("it does not begin with its root")
        self._push(os.dup(self.root), record)

    def _push(self, fd: int, record: Record) -> None:
        names = {os.fsencode(name) for name in os.listdir(fd)}
        self._open.append(_Folder(fd, record, names))
        _own(fd, os.fstat(fd), record)

    def _take(self, record: Record) -> None:
        folder = self._open[-1]
        if record.kind == b"U":
            self._leave()
            return
        if not _is_name(record.name) or record.name <= folder.last:
            raise BadTree("a name is none, or out of order")
        folder.last = record.name
        was_there = record.name in folder.others
        folder.others.discard(record.name)
        if record.kind != b"K":
            self._make(folder, record, was_there=was_there)

    def _make(self, folder: _Folder, record: Record, *, was_there: bool) -> None:
        old = os.stat(record.name, dir_fd=folder.fd, follow_symlinks=False) if was_there else None
        match record.kind:
            case b"D":
                self._enter(folder, record, old)
            case b"S":
                if old is None or not _is_same(old, record):
                    raise BadTree("a file that is said to be the image's is not")
            case b"F":
                _clear(folder.fd, record.name, old)
                self._write_file(folder, record)
            case b"L":
                if not (old and _is_same_link(folder.fd, old, record)):
                    _clear(folder.fd, record.name, old)
                    os.symlink(record.target, record.name, dir_fd=folder.fd)
                    self._finish_special(folder, record)
            case b"P":
                _clear(folder.fd, record.name, old)
                os.mkfifo(record.name, 0o600, dir_fd=folder.fd)
                self._finish_special(folder, record)
                os.chmod(record.name, record.mode, dir_fd=folder.fd)
            case b"H":
                _clear(folder.fd, record.name, old)
                self._link(folder, record)
            case _:
                raise BadTree("a record is of no known kind")

    def _enter(self, folder: _Folder, record: Record, old: os.stat_result | None) -> None:
        if len(self._open) >= limits.BUILD_TREE_DEPTH:
            raise BadTree(f"its folders are more than {limits.BUILD_TREE_DEPTH} deep")
        if old is None or not stat.S_ISDIR(old.st_mode):
            _clear(folder.fd, record.name, old)
            os.mkdir(record.name, 0o700, dir_fd=folder.fd)
        self._push(_open_folder(record.name, folder.fd), record)

    def _leave(self) -> None:
        folder = self._open.pop()
        try:
            for name in sorted(folder.others):
                _clear(folder.fd, name, os.stat(name, dir_fd=folder.fd, follow_symlinks=False))
            mtime = self._clamped(folder.record)
            if os.fstat(folder.fd).st_mtime_ns != mtime:
                os.utime(folder.fd, ns=(mtime, mtime))
        finally:
            os.close(folder.fd)

    def _write_file(self, folder: _Folder, record: Record) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(record.name, flags, 0o600, dir_fd=folder.fd)
        try:
            left = record.size
            while left:
                chunk = self.source.read(min(left, ROOM))
                if not chunk:
                    raise BadTree("it ends too early")
                _write(fd, chunk)
                left -= len(chunk)
            os.ftruncate(fd, record.size)
            os.fchown(fd, record.uid, record.gid)
            os.fchmod(fd, record.mode)
            mtime = self._clamped(record)
            os.utime(fd, ns=(mtime, mtime))
        finally:
            os.close(fd)

    def _finish_special(self, folder: _Folder, record: Record) -> None:
        os.chown(record.name, record.uid, record.gid, dir_fd=folder.fd, follow_symlinks=False)
        mtime = self._clamped(record)
        os.utime(record.name, ns=(mtime, mtime), dir_fd=folder.fd, follow_symlinks=False)

    def _link(self, folder: _Folder, record: Record) -> None:
        *parents, name = record.target.split(b"/")
        if not all(map(_is_name, (*parents, name))) or len(parents) >= limits.BUILD_TREE_DEPTH:
            raise BadTree("a hard link leads nowhere")
        with _descended(self.root, parents) as fd:
            if not stat.S_ISREG(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                raise BadTree("a hard link leads to no file")
            os.link(name, record.name, src_dir_fd=fd, dst_dir_fd=folder.fd, follow_symlinks=False)

    def _clamped(self, record: Record) -> int:
        return max(0, min(record.mtime, self.epoch * SECOND))


def _read_record(source: BinaryIO) -> Record:
    kind, mode, uid, gid, mtime, size, name, target = HEAD.unpack(_read(source, HEAD.size))
    if mode > MODE_BITS or NO_ID in (uid, gid):
        raise BadTree("an owner or a mode is none")
    return Record(kind, mode, uid, gid, mtime, size, _read(source, name), _read(source, target))


def _read(source: BinaryIO, length: int) -> bytes:
    content = source.read(length)
    if len(content) != length:
        raise BadTree("it ends too early")
    return content


def _is_name(name: bytes) -> bool:
    return 0 < len(name) <= NAME_MAX and name not in (b".", b"..") and b"/" not in name and b"\0" not in name


def _is_same(old: os.stat_result, record: Record) -> bool:
    mode = stat.S_IFREG | record.mode
    mine = (old.st_mode, old.st_uid, old.st_gid, old.st_size, old.st_mtime_ns)
    return mine == (mode, record.uid, record.gid, record.size, record.mtime)


def _is_same_link(folder: int, old: os.stat_result, record: Record) -> bool:
    return (
        stat.S_ISLNK(old.st_mode)
        and (old.st_uid, old.st_gid, old.st_mtime_ns) == (record.uid, record.gid, record.mtime)
        and os.readlink(record.name, dir_fd=folder) == record.target
    )


def _own(fd: int, found: os.stat_result, record: Record) -> None:
    """Untouched where nothing differs: each folder that is changed is copied up from the image."""
    if (found.st_uid, found.st_gid) != (record.uid, record.gid):
        os.fchown(fd, record.uid, record.gid)
        found = os.fstat(fd)
    if stat.S_IMODE(found.st_mode) != record.mode:
        os.fchmod(fd, record.mode)


def _clear(folder: int, name: bytes, old: os.stat_result | None) -> None:
    if old is None:
        return
    if stat.S_ISDIR(old.st_mode):
        shutil.rmtree(os.fsdecode(name), dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)


def _open_folder(name: bytes, parent: int) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


@contextlib.contextmanager
def _descended(root: int, names: list[bytes]) -> Generator[int]:
    fd = os.dup(root)
    try:
        for name in names:
            deeper = _open_folder(name, fd)
            os.close(fd)
            fd = deeper
        yield fd
    finally:
        os.close(fd)


def _write(fd: int, chunk: bytes) -> None:
    """Zeros become a hole."""
    if not any(chunk):
        os.lseek(fd, len(chunk), os.SEEK_CUR)
        return
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]
