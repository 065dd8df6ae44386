"""Files with holes, read and copied without their zeros.

A file is seen as a row of chunks of one size. One that holds nothing but zeros does not count, whether it is a hole or
was written: what is told of a file does not depend on how the file system keeps it.
"""

import os
from collections.abc import Iterator

CHUNK_BYTES = 1024 * 1024
ZEROS = bytes(CHUNK_BYTES)


def data_chunks(fd: int) -> Iterator[int]:
    """Numbers of the chunks that may hold data, in order."""
    size, position = os.fstat(fd).st_size, 0
    while position < size:
        start, end = _next_data(fd, position, size)
        last = -(-end // CHUNK_BYTES)
        yield from range(start // CHUNK_BYTES, last)
        position = last * CHUNK_BYTES


def read_chunk(fd: int, number: int) -> bytes:
    """Its bytes, fewer at the end of the file; none when all are zero."""
    content = os.pread(fd, CHUNK_BYTES, number * CHUNK_BYTES)
    return b"" if content == ZEROS[: len(content)] else content


def copy_data(source: int, target: int) -> None:
    """Make an empty `target` the same as `source`. The kernel copies, or shares the blocks where it can."""
    size, position = os.fstat(source).st_size, 0
    os.ftruncate(target, size)
    while position < size:
        start, position = _next_data(source, position, size)
        _copy_range(source, target, start, position)


def _next_data(fd: int, position: int, size: int) -> tuple[int, int]:
    """Start and end of the next stretch of data; an empty one at the file's end when only a hole is left."""
    try:
        start = os.lseek(fd, position, os.SEEK_DATA)
    except OSError:  # ENXIO
        return size, size
    return start, os.lseek(fd, start, os.SEEK_HOLE)


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        copied = os.copy_file_range(source, target, end - start, start, start)
        if copied == 0:
            raise OSError(f"the file ended at byte {start}, before {end}")
        start += copied
