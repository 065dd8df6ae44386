"""What the kernel says about a path of a volume, in words for whoever asked."""

import contextlib
import errno
from collections.abc import Generator

from warren.model.errors import AlreadyExists, BadRequest, Busy, EngineFailed, NoSpace, PathNotFound, WarrenError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMLINK})
_NEVER = {
    errno.ENOTDIR: "a part of it is no directory",
    errno.ELOOP: "it leads through too many links",
    errno.ENAMETOOLONG: "it or a part of it is too long",
    errno.EISDIR: "it is a directory",
    errno.ENOTEMPTY: "it is a directory",
    errno.ENXIO: "it is neither file nor directory",
    errno.ENODEV: "it is neither file nor directory",
    errno.EACCES: "it is neither file nor directory",
    errno.EXDEV: "it lies on another file system",
    errno.EINVAL: "it cannot be a name",
}


@contextlib.contextmanager
def told(path: str) -> Generator[None]:
    """Raises the error of the model in place of an OSError about `path`."""
    try:
        yield
    except OSError as error:
        raise _in_words(path, error) from error


def _in_words(path: str, error: OSError) -> WarrenError:
    number = error.errno or 0
    if number == errno.ENOENT:
        return PathNotFound(f"cannot find {path!r} in the volume")
    if number == errno.EEXIST:
        return AlreadyExists(f"cannot make {path!r}: it exists")
    if number in _FULL:
        return NoSpace(f"cannot write {path!r}: the volume is full")
    if number == errno.EAGAIN:
        return Busy(f"cannot use {path!r} now: somebody is changing it; try again")
    if number in _NEVER:
        return BadRequest(f"cannot use {path!r}: {_NEVER[number]}")
    return EngineFailed(f"cannot use {path!r}: {error.strerror}; the server's log may say more")
