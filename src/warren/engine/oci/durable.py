"""Files that survive a power cut, and files that are certainly gone."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def files_below(folder: Path) -> list[Path]:
    """All plain files, in order of their names."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


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
