"""A snapshot: what is kept of one sandbox, for many others to start from."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from warren.model.sandbox import Resources
from warren.model.volume import VolumeMount

CHECKPOINT_ID = re.compile(r"c[a-z0-9]{20}")
SNAPSHOT_ID = re.compile(r"s[a-z0-9]{20}")
DEFAULT_TAG = "default"


class SnapshotKind(enum.StrEnum):
    """MEMORY: processes, memory and files. FILESYSTEM: files alone; what starts from it boots."""

    MEMORY = "memory"
    FILESYSTEM = "filesystem"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A checkpoint that new sandboxes start from. Each has one checkpoint of its own, written once.

    `source_id` is the sandbox it was taken of, `template_id` that one's root template. `name` and `tag` are the version
    name it holds now; a newer snapshot of the same name and tag takes them away, and `id` goes on naming this one.
    """

    id: str
    project_id: str
    checkpoint_id: str
    kind: SnapshotKind
    source_id: str
    template_id: str
    digest: str
    default_user: str
    default_workdir: str
    runtime: str
    resources: Resources
    created_at: datetime
    bytes: int
    name: str | None = None
    tag: str = DEFAULT_TAG
    template_envs: Mapping[str, str] = field(default_factory=dict[str, str])
    volumes: tuple[VolumeMount, ...] = ()


@dataclass(frozen=True, slots=True)
class SnapshotUsage:
    """Disk that a project's paused sandboxes and snapshots take."""

    paused: int
    paused_bytes: int
    snapshots: int
    snapshot_bytes: int

    @property
    def bytes(self) -> int:
        return self.paused_bytes + self.snapshot_bytes
