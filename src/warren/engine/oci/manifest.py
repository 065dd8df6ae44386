"""What a checkpoint is made of and what it needs, as a value. Pure: no file is touched here."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from warren.contracts.engine import Checkpoint, SandboxSpec
from warren.model.sandbox import Resources
from warren.model.snapshot import CHECKPOINT_ID, SnapshotKind

T = TypeVar("T", Resources, "Piece")

VERSION = 2
"""Of the file's form and of how the pieces are written. Files are read whatever it is, see LASTING."""
PARTS: Mapping[SnapshotKind, str] = {SnapshotKind.MEMORY: "memory", SnapshotKind.FILESYSTEM: "files"}
"""Folders of a checkpoint, by what a start from it reads.

A version that writes files in another form gives their folder another name: others then know that they cannot read it.
"""
LASTING = ("version", "id", "sandbox_id", "runtime", "kind", "image", "resources", "key", "pieces")
"""What every version writes, and in the same way: enough to find the files and to see whether they are whole."""


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
        kind = self.kind if self.is_of_this_version else SnapshotKind.FILESYSTEM
        return Checkpoint(self.id, self.sandbox_id, self.runtime, kind, size, self.build)

    @property
    def is_of_this_version(self) -> bool:
        """Else nothing is known of its memory, and what it has of files can be read."""
        return self.version == VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Also of another version, and then of its files alone. Raises ValueError for what is no manifest."""
        try:
            found = json.loads(text)
            if not isinstance(found["version"], int) or not CHECKPOINT_ID.fullmatch(found["id"]):
                raise ValueError("not a manifest")
            fields = found if found["version"] == VERSION else {name: found[name] for name in LASTING}
            fields["kind"] = SnapshotKind(fields["kind"])
            fields["resources"] = _of(Resources, fields["resources"])
            fields["cpu_flags"] = tuple(fields.get("cpu_flags", ()))
            fields["pieces"] = {name: _of(Piece, piece) for name, piece in fields["pieces"].items()}
            return cls(**fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a manifest: {error}") from None


def _of(kind: type[T], values: Mapping[str, Any]) -> T:
    """Without what another version may say besides."""
    return kind(**{name: value for name, value in values.items() if name in kind.__dataclass_fields__})


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
    if kind is SnapshotKind.MEMORY:
        return _memory_obstacle(manifest, spec, here)
    if not manifest.is_of_this_version and not has_files(manifest):
        return "another version of Warren wrote it, and its files are of a form that is not known here"
    return None


def has_files(manifest: Manifest) -> bool:
    return any(name.startswith(f"{PARTS[SnapshotKind.FILESYSTEM]}/") for name in manifest.pieces)


def _memory_obstacle(manifest: Manifest, spec: SandboxSpec, here: Needs) -> str | None:
    if manifest.kind is SnapshotKind.FILESYSTEM:
        return "it holds files alone"
    if not manifest.is_of_this_version:
        return "another version of Warren wrote it"
    if spec.resources.memory_mb < manifest.resources.memory_mb:
        return f"it needs {manifest.resources.memory_mb} MiB of memory"
    if manifest.build != here.build:
        return f"it needs the build {manifest.build}, and this server has {here.build}"
    missing = sorted(set(manifest.cpu_flags) - here.cpu_flags)
    return f"it needs a processor with {', '.join(missing)}" if missing else None
