"""Files that are whole or not there, survive a power cut, and are certainly gone when they are removed."""

import errno
import os
import shutil
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

PRIVATE = 0o600
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the kernel says where a disk is full, or somebody's share of it."""


def write(file: Path, content: bytes | str, mode: int = PRIVATE, *, lasting: bool = True) -> None:
    """In one step, in place of what was there: a crash leaves the old content or the new one.

    lasting False: for what means nothing after a restart of the machine, and need not wait for the disk.
    """
    with _written(file, content, mode, lasting) as draft:
        if lasting:
            rename(draft, file)
        else:
            draft.rename(file)


def write_once(file: Path, content: bytes | str) -> bytes:
    """What is in the file: `content`, unless somebody was there before. Whoever asks gets the same."""
    with _written(file, content, PRIVATE, lasting=True) as draft:
        try:
            os.link(draft, file)
        except FileExistsError:
            return file.read_bytes()
        flush([file.parent])
        return draft.read_bytes()


@contextmanager
def _written(file: Path, content: bytes | str, mode: int, lasting: bool) -> Generator[Path]:
    """A file beside it that holds `content`."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            os.fchmod(descriptor, mode)
            opened.write(content.encode() if isinstance(content, str) else content)
            opened.flush()
            if lasting:
                os.fsync(descriptor)
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def files_below(folder: Path) -> list[Path]:
    """All plain files, in order of their names."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def disk_used(folder: Path) -> int:
    """Bytes on disk of the files below `folder`, while others write and remove there; 0 when it is not there."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.lstat(os.path.join(place, name)).st_blocks * 512
    return size


def flush(paths: Iterable[Path]) -> None:
    """Bring files and folders to the disk."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def rename(source: Path, target: Path) -> None:
    """In one step, and for good once this returns. Both lie in one folder."""
    source.rename(target)
    flush([target.parent])


def erase(folder: Path) -> None:
    """Remove a folder with what is in it; its blocks are free at once, whoever still has a file of it open."""
    for path in files_below(folder):
        os.truncate(path, 0)
    shutil.rmtree(folder)
    flush([folder.parent])
