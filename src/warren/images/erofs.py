"""The one form of a template's root file system: EROFS, the same bytes for the same tree."""

import uuid
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path


def pack_command(tree: Path | str, target: Path | str, identity: str) -> Sequence[str]:
    """The command that packs `tree` into `target`. `identity`: what the content is known by, for the file system's id.

    No inlined data, because gVisor maps whole blocks; no extended attributes, because gVisor cannot read a file that
    has any on EROFS, and file capabilities mean nothing in a sandbox.
    """
    identifier = uuid.UUID(bytes=sha256(identity.encode()).digest()[:16], version=4)
    return ["mkfs.erofs", "--quiet", "-Enoinline_data", "-x-1", "-U", str(identifier), str(target), str(tree)]


def pack_environment(newest: int) -> Mapping[str, str]:
    """For that command: whatever is younger than `newest`, in seconds since 1970, gets this time. Two trees with the
    same content then have the same image, whenever they were made."""
    return {"SOURCE_DATE_EPOCH": str(max(newest, 1))}
