"""The part of a volume that no sandbox sees: what is made or deleted is so in here, and moved out or in as a whole."""

import contextlib
import errno
import os
import secrets

from warren.engine.oci import libc
from warren.model.volume import Attributes

PURGE_TRIES = 10
"""A process whose working directory was deleted may go on making files there; then they wait for the next start."""
DEFAULT_DIR_MODE = 0o755
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Staging:
    """`fd` is the staging folder's, closed by `close`. All raise OSError."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        os.close(self._fd)

    def clear(self) -> None:
        """What a crash has left. Only while nobody makes or deletes anything."""
        for name in os.listdir(self._fd):
            self.purge(name)

    def new_file(self) -> tuple[int, str]:
        """An empty file, open for writing, and its name here."""
        name = fresh_name()
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._fd), name

    def drop_file(self, name: str) -> None:
        os.unlink(name, dir_fd=self._fd)

    def move_out(self, name: str, parent: int, target: str) -> None:
        """In place of whatever is there."""
        os.rename(name, target, src_dir_fd=self._fd, dst_dir_fd=parent)
        os.fsync(parent)

    def take_in(self, parent: int, name: str) -> str:
        """Whatever is there; its name here."""
        fresh = fresh_name()
        os.rename(name, fresh, src_dir_fd=parent, dst_dir_fd=self._fd)
        os.fsync(parent)
        return fresh

    def make_dir(self, parent: int, name: str, attributes: Attributes) -> None:
        """Made aside, so that nobody sees it with another owner or mode. Raises FileExistsError."""
        own, fresh = os.fstat(parent), fresh_name()
        os.mkdir(fresh, 0o700, dir_fd=self._fd)
        try:
            fd = os.open(fresh, DIRECTORY, dir_fd=self._fd)
            try:
                apply(fd, attributes.over(Attributes(own.st_uid, own.st_gid, DEFAULT_DIR_MODE)))
                os.fsync(fd)
            finally:
                os.close(fd)
            libc.rename_to_nothing(self._fd, fresh, parent, name)
        except BaseException:
            os.rmdir(fresh, dir_fd=self._fd)
            raise
        os.fsync(parent)

    def purge(self, name: str) -> None:
        """Delete what is staged, however deep, one directory open at a time: deeper ones are brought up first."""
        pending = [name]
        while pending:
            current = pending.pop()
            try:
                fd = os.open(current, DIRECTORY, dir_fd=self._fd)
            except NotADirectoryError:
                os.unlink(current, dir_fd=self._fd)
                continue
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                os.unlink(current, dir_fd=self._fd)  # a link
                continue
            try:
                for _ in range(PURGE_TRIES):
                    pending.extend(self._empty(fd))
                    with contextlib.suppress(OSError):
                        os.rmdir(current, dir_fd=self._fd)
                        break
            finally:
                os.close(fd)

    def _empty(self, directory: int) -> list[str]:
        """Delete the files of a directory and take its directories out; their new names in the staging folder."""
        taken: list[str] = []
        with os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.name, dir_fd=directory)
                        continue
                    try:
                        os.rmdir(entry.name, dir_fd=directory)
                    except OSError:
                        fresh = fresh_name()
                        os.rename(entry.name, fresh, src_dir_fd=directory, dst_dir_fd=self._fd)
                        taken.append(fresh)
        return taken


def apply(fd: int, attributes: Attributes) -> None:
    """Owner before mode: a change of owner takes bits away."""
    os.fchown(fd, -1 if attributes.uid is None else attributes.uid, -1 if attributes.gid is None else attributes.gid)
    if attributes.mode is not None:
        os.fchmod(fd, attributes.mode)


def fresh_name() -> str:
    return secrets.token_hex(16)
