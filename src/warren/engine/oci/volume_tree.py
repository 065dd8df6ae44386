"""The files of a mounted volume, changed by this server while hostile sandboxes change them too.

Every path is walked by the kernel below the volume's root (openat2 with RESOLVE_IN_ROOT): a link to `/etc/passwd`
ends at `etc/passwd` of the volume, `..` ends at its root, and no rename meanwhile leads out. What is opened is looked
at before it is used. What is made or deleted is so in the staging folder beside the root, which no sandbox sees, and
moved from or to there in one step. All of it blocks.
"""

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from warren.engine.oci import libc
from warren.engine.oci.volume_errors import told
from warren.engine.oci.volume_staging import DIRECTORY, Staging, apply
from warren.model import limits
from warren.model.errors import AlreadyExists, BadRequest, EngineFailed
from warren.model.volume import Attributes, EntryType, VolumeEntry

DATA = "data"
STAGING = "staging"
IN_ROOT = libc.RESOLVE_IN_ROOT | libc.RESOLVE_NO_MAGICLINKS | libc.RESOLVE_NO_XDEV
NO_LINKS = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_NO_XDEV
RESOLVE_TRIES = 100
"""The kernel gives up (EAGAIN) a walk through `..` while anything on the machine is renamed, and an opening that a
lease of somebody inside stands against; so often in a row it is on purpose."""
DEFAULT_FILE_MODE = 0o644
_TYPES = {stat.S_IFREG: EntryType.FILE, stat.S_IFDIR: EntryType.DIRECTORY, stat.S_IFLNK: EntryType.SYMLINK}


class Tree:
    """Paths are those of `model.volume.entry_path`."""

    staging: Staging

    def __init__(self, mount: Path) -> None:
        self._mount = mount
        self._root = -1

    def __enter__(self) -> Self:
        try:
            self._root = os.open(self._mount / DATA, DIRECTORY)
            self.staging = Staging(os.open(self._mount / STAGING, DIRECTORY))
        except OSError as error:
            if self._root >= 0:
                os.close(self._root)
            raise EngineFailed(f"cannot open volume {self._mount.name}: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)
        self.staging.close()

    def stat(self, path: str) -> VolumeEntry:
        with told(path), self._opened(path, os.O_PATH | os.O_NOFOLLOW) as fd:
            found = os.fstat(fd)
            return _entry(path, found, os.readlink("", dir_fd=fd) if stat.S_ISLNK(found.st_mode) else None)

    def list(self, path: str, depth: int) -> Sequence[VolumeEntry]:
        found: list[VolumeEntry] = []
        with told(path), self._opened(path, os.O_RDONLY | os.O_DIRECTORY) as top:
            pending = [("", 1)]
            while pending:
                inner, level = pending.pop()
                for entry in _children(top, path, inner):
                    if len(found) == limits.VOLUME_ENTRIES_MAX:
                        raise BadRequest(
                            f"cannot list more than {limits.VOLUME_ENTRIES_MAX} entries: list one directory at a time"
                        )
                    found.append(entry)
                    if entry.type is EntryType.DIRECTORY and level < depth:
                        pending.append((posixpath.join(inner, entry.name), level + 1))
        return sorted(found, key=lambda entry: entry.path)

    def make_dir(self, path: str, attributes: Attributes, *, force: bool) -> VolumeEntry:
        if path == "/":
            if not force:
                raise AlreadyExists("cannot make '/': it exists")
            return self.stat(path)
        with told(path):
            parent, name = self._parent(path, make=force)
            try:
                self.staging.make_dir(parent, name, attributes)
            except FileExistsError:
                if not force or not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    raise
            finally:
                os.close(parent)
        return self.stat(path)

    def change(self, path: str, attributes: Attributes) -> VolumeEntry:
        with told(path), self._opened(path, os.O_RDONLY | os.O_NONBLOCK) as fd:
            if not (stat.S_ISREG(os.fstat(fd).st_mode) or stat.S_ISDIR(os.fstat(fd).st_mode)):
                raise BadRequest(f"cannot change {path!r}: it is neither file nor directory")
            apply(fd, attributes)
            os.fsync(fd)
            return _entry(path, os.fstat(fd))

    def delete(self, path: str) -> None:
        if path == "/":
            raise BadRequest("cannot delete '/': delete what is in it, or the volume")
        with told(path):
            parent, name = self._parent(path)
            try:
                doomed = self.staging.take_in(parent, name)
            finally:
                os.close(parent)
            self.staging.purge(doomed)

    def open_file(self, path: str) -> int:
        """A descriptor of a regular file, for the caller to read and close."""
        with told(path):
            fd = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                raise BadRequest(f"cannot read {path!r}: it is no file")
            return fd

    def check_target(self, path: str, *, force: bool) -> None:
        """Say before any content comes what would be wrong after it."""
        with told(path):
            if path == "/":
                raise IsADirectoryError(errno.EISDIR, "")
            try:
                parent, name = self._parent(path)
            except FileNotFoundError:
                if not force:
                    raise
                return
            try:
                _refuse_directory(parent, name)
            finally:
                os.close(parent)

    def put(self, fd: int, staged: str, path: str, attributes: Attributes, *, force: bool) -> VolumeEntry:
        """Move a staged file, whole and on the disk, to its place."""
        with told(path):
            parent, name = self._parent(path, make=force)
            try:
                before = _refuse_directory(parent, name)
                if before is None or not stat.S_ISREG(before.st_mode):
                    own = os.fstat(parent)
                    known = Attributes(own.st_uid, own.st_gid, DEFAULT_FILE_MODE)
                else:
                    known = Attributes(before.st_uid, before.st_gid, before.st_mode & limits.VOLUME_MODE_MAX)
                apply(fd, attributes.over(known))
                os.fsync(fd)
                self.staging.move_out(staged, parent, name)
            finally:
                os.close(parent)
            return _entry(path, os.fstat(fd))

    @contextlib.contextmanager
    def _opened(self, path: str, flags: int) -> Generator[int]:
        fd = self._open(path, flags)
        try:
            yield fd
        finally:
            os.close(fd)

    def _open(self, path: str, flags: int) -> int:
        for _ in range(RESOLVE_TRIES - 1):
            with contextlib.suppress(BlockingIOError):
                return libc.openat2(self._root, path, flags, IN_ROOT)
        return libc.openat2(self._root, path, flags, IN_ROOT)

    def _parent(self, path: str, *, make: bool = False) -> tuple[int, str]:
        """A descriptor of the directory that `path` is in, for the caller to close, and the last part of the path."""
        above, name = posixpath.split(path)
        if make:
            self._make_parents(above)
        return self._open(above, os.O_RDONLY | os.O_DIRECTORY), name

    def _make_parents(self, path: str) -> None:
        missing: list[str] = []
        while True:
            try:
                os.close(self._open(path, os.O_PATH | os.O_DIRECTORY))
                break
            except FileNotFoundError:
                missing.append(path)
                path = posixpath.dirname(path)
        for place in reversed(missing):
            parent, name = self._parent(place)
            try:
                with contextlib.suppress(FileExistsError):  # a link to nothing, or somebody was faster
                    self.staging.make_dir(parent, name, Attributes())
            finally:
                os.close(parent)


def _children(top: int, path: str, inner: str) -> Generator[VolumeEntry]:
    """Of the directory `inner` below `top`; nothing if it has gone or become something else meanwhile."""
    try:
        fd = libc.openat2(top, inner or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, NO_LINKS)
    except OSError:
        return
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    target = os.readlink(entry.name, dir_fd=fd) if entry.is_symlink() else None
                    yield _entry(posixpath.join(path, inner, entry.name), found, target)
    finally:
        os.close(fd)


def _entry(path: str, found: os.stat_result, target: str | None = None) -> VolumeEntry:
    return VolumeEntry(
        path=_shown(path),
        type=_TYPES.get(stat.S_IFMT(found.st_mode), EntryType.UNKNOWN),
        size=found.st_size,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        atime=_time(found.st_atime_ns),
        mtime=_time(found.st_mtime_ns),
        ctime=_time(found.st_ctime_ns),
        target=None if target is None else _shown(target),
    )


def _time(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


def _shown(name: str) -> str:
    """Names are bytes, and a sandbox may have chosen some that are no text."""
    return os.fsencode(name).decode(errors="replace")


def _refuse_directory(parent: int, name: str) -> os.stat_result | None:
    """What is there, if anything. Raises IsADirectoryError."""
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "")
    return found
