"""What a checkpoint is made of and what it needs, as a value. Pure: no file is touched here."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from warren.contracts.engine import Checkpoint, SandboxSpec
from warren.model.sandbox import Resources
from warren.model.snapshot import CHECKPOINT_ID, SnapshotKind

VERSION = 2
"""Of the file's form and of how the pieces are written."""
PARTS: Mapping[SnapshotKind, str] = {SnapshotKind.MEMORY: "memory", SnapshotKind.FILESYSTEM: "files"}
"""Folders of a checkpoint, by what a start from it reads."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One file of a checkpoint: its length, the bytes on disk, and its digest.

    None for a sealed one, which proves itself, and for a passing one, which only the server that wrote it will read.
    """

    length: int
    on_disk: int
    digest: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """`image` is the digest of the template; `guest` names the copy of guestd that the saved processes run.

    `build` and `cpu_flags` are what memory needs, and empty without any. `key` is the checkpoint's own, sealed with
    the server's; empty for one that lies in the open. It and `pieces` come in when they are written.
    """

    id: str
    sandbox_id: str
    runtime: str
    kind: SnapshotKind
    image: str
    resources: Resources
    build: str = ""
    cpu_flags: tuple[str, ...] = ()
    guest: str = ""
    key: str = ""
    pieces: Mapping[str, Piece] = field(default_factory=dict[str, Piece])
    version: int = VERSION

    @property
    def checkpoint(self) -> Checkpoint:
        size = sum(piece.on_disk for piece in self.pieces.values())
        return Checkpoint(self.id, self.sandbox_id, self.runtime, self.kind, size, self.build)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Raises ValueError for what this version does not understand."""
        try:
            fields = json.loads(text)
            if fields["version"] != VERSION or not CHECKPOINT_ID.fullmatch(fields["id"]):
                raise ValueError("not a manifest of this version")
            fields["kind"] = SnapshotKind(fields["kind"])
            fields["resources"] = Resources(**fields["resources"])
            fields["cpu_flags"] = tuple(fields["cpu_flags"])
            fields["pieces"] = {name: Piece(**piece) for name, piece in fields["pieces"].items()}
            return cls(**fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a manifest: {error}") from None


@dataclass(frozen=True, slots=True)
class Needs:
    """What a runtime on this machine restores memory with; what it saves now needs the same."""

    build: str = ""
    cpu_flags: frozenset[str] = frozenset()


def obstacle(manifest: Manifest, spec: SandboxSpec, kind: SnapshotKind, here: Needs) -> str | None:
    """Why `spec` cannot start from this checkpoint here; None when it can."""
    if spec.runtime != manifest.runtime:
        return f"it is one of runtime {manifest.runtime}"
    if spec.image.digest != manifest.image:
        return f"it belongs to the template build {manifest.image}"
    if spec.resources.disk_mb != manifest.resources.disk_mb:
        return f"its disk has {manifest.resources.disk_mb} MiB, no more and no less"
    return _memory_obstacle(manifest, spec, here) if kind is SnapshotKind.MEMORY else None


def _memory_obstacle(manifest: Manifest, spec: SandboxSpec, here: Needs) -> str | None:
    if manifest.kind is SnapshotKind.FILESYSTEM:
        return "it holds files alone"
    if spec.resources.memory_mb < manifest.resources.memory_mb:
        return f"it needs {manifest.resources.memory_mb} MiB of memory"
    if manifest.build != here.build:
        return f"it needs the build {manifest.build}, and this server has {here.build}"
    missing = sorted(set(manifest.cpu_flags) - here.cpu_flags)
    return f"it needs a processor with {', '.join(missing)}" if missing else None
