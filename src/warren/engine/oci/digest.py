"""One digest for a whole file, worked out on all processors: a checkpoint is digested while its sandbox waits."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from warren.engine.oci.sparse import data_chunks, read_chunk

WORKERS = max(2, os.cpu_count() or 2)
DIGEST_BYTES = 32


def digest_of(fd: int) -> str:
    """BLAKE2b over the file's length and, for each chunk that is not all zeros, its number and its own digest."""
    whole = hashlib.blake2b(os.fstat(fd).st_size.to_bytes(8, "big"), digest_size=DIGEST_BYTES)
    with ThreadPoolExecutor(WORKERS, "digest") as workers:
        for part in workers.map(partial(_numbered_digest, fd), data_chunks(fd)):
            whole.update(part)
    return whole.hexdigest()


def _numbered_digest(fd: int, number: int) -> bytes:
    content = read_chunk(fd, number)
    return number.to_bytes(8, "big") + hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest() if content else b""
