"""A volume: files of a project that outlive its sandboxes and are shared by as many as mount it."""

import enum
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from warren.model import limits
from warren.model.errors import BadRequest

VOLUME_ID = re.compile(r"v[a-z0-9]{20}")
VOLUME_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
RESERVED_PATHS = ("/proc", "/sys", "/dev", "/.warren")
"""What the runtime mounts for itself; a volume above or below it would take it away from the guest."""


@dataclass(frozen=True, slots=True)
class Volume:
    """`server_id`: the server on whose disk its files are. `ready` is false while they are being made or deleted."""

    id: str
    project_id: str
    name: str
    size_mb: int
    created_at: datetime
    server_id: str
    ready: bool = False


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """A volume in a sandbox. `name` is the volume's, which never changes."""

    volume_id: str
    name: str
    path: str
    read_only: bool = False


class EntryType(enum.StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class VolumeEntry:
    """What lies at a path of a volume. `mode` has the permission bits alone; `target` is what a link says."""

    path: str
    type: EntryType
    size: int
    mode: int
    uid: int
    gid: int
    atime: datetime
    mtime: datetime
    ctime: datetime
    target: str | None = None

    @property
    def name(self) -> str:
        return posixpath.basename(self.path) or "/"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What to make an entry with; None leaves it as it is, or as it comes."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None

    def over(self, known: "Attributes") -> "Attributes":
        """These, and of `known` what these leave open."""
        return Attributes(
            known.uid if self.uid is None else self.uid,
            known.gid if self.gid is None else self.gid,
            known.mode if self.mode is None else self.mode,
        )

    def check(self) -> None:
        """Raises BadRequest."""
        for name, value in (("uid", self.uid), ("gid", self.gid)):
            if value is not None and not 0 <= value <= limits.VOLUME_ID_MAX:
                raise BadRequest(f"cannot use {name} {value}: give 0 to {limits.VOLUME_ID_MAX}")
        if self.mode is not None and not 0 <= self.mode <= limits.VOLUME_MODE_MAX:
            raise BadRequest(f"cannot use mode {self.mode}: 0 to {limits.VOLUME_MODE_MAX} (0o1777), no set-id bits")


def entry_path(text: str) -> str:
    """The path in its one form: absolute, without `.` and `..`, which end at the volume's root. Raises BadRequest."""
    if "\0" in text or len(text.encode(errors="surrogatepass")) > limits.VOLUME_PATH_MAX:
        raise BadRequest(f"cannot use that path: give at most {limits.VOLUME_PATH_MAX} bytes without NUL")
    path = posixpath.normpath("/" + text.lstrip("/"))
    if path.count("/") > limits.VOLUME_DEPTH_MAX:
        raise BadRequest(f"cannot use that path: at most {limits.VOLUME_DEPTH_MAX} directories above each other")
    return path


def check_mounts(mounts: Sequence[tuple[str, str]]) -> None:
    """Whether names and paths can be mounted together. Raises BadRequest."""
    if len(mounts) > limits.VOLUME_MOUNTS_MAX:
        raise BadRequest(f"cannot mount {len(mounts)} volumes: at most {limits.VOLUME_MOUNTS_MAX} in a sandbox")
    paths = [path for _, path in mounts]
    for path in paths:
        if not path.startswith("/") or path == "/" or path != posixpath.normpath(path) or path.startswith("//"):
            raise BadRequest(f"cannot mount at {path!r}: write an absolute path, no '.', '..' or slash at its end")
        if "\0" in path or len(path.encode(errors="surrogatepass")) > limits.VOLUME_MOUNT_PATH_MAX:
            raise BadRequest(f"cannot mount at that path: at most {limits.VOLUME_MOUNT_PATH_MAX} bytes without NUL")
        reserved = next((place for place in RESERVED_PATHS if _is_below(path, place)), None)
        if reserved is not None:
            raise BadRequest(f"cannot mount at {path!r}: {reserved} belongs to the sandbox itself")
        above = next((other for other in paths if other != path and _is_below(path, other)), None)
        if above is not None or paths.count(path) > 1:
            raise BadRequest(f"cannot mount at {path!r}: another volume is mounted at {above or path!r}")


def _is_below(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")
