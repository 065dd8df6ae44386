"""Trees as guestd writes them (`guestd/internal/build/tree.go`), for tests of what reads them."""

from warren.engine.oci.tree import HEAD


def record(
    kind: str,
    name: str | bytes = b"",
    target: str | bytes = b"",
    content: bytes = b"",
    *,
    mode: int = 0o755,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    size: int | None = None,
) -> bytes:
    name, target = (part.encode() if isinstance(part, str) else part for part in (name, target))
    length = len(content) if size is None else size
    return HEAD.pack(kind.encode(), mode, uid, gid, mtime, length, len(name), len(target)) + name + target + content


def tree(*records: bytes) -> bytes:
    return b"".join((record("D"), *records, record("U"), record("E")))
