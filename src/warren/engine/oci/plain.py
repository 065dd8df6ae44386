"""How a checkpoint lies on the disk in the open: the files as the runtime wrote them, each with its digest."""

import contextlib
import os
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from warren.durable import files_below, flush
from warren.engine.oci.digest import digest_of
from warren.engine.oci.manifest import PARTS, Manifest, Piece
from warren.model.errors import CheckpointUnusable
from warren.model.snapshot import SnapshotKind

Identity = tuple[int, int, int, int]


class Plain:
    """Remembers what it has seen whole: a file is written once, and only root can change it."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, tuple[Identity, str | None]]] = {}

    @contextlib.contextmanager
    def scratch(self, draft: Path, kind: SnapshotKind, size: int) -> Generator[Path]:
        """Where the runtime writes: right into the draft."""
        del kind, size
        yield draft

    def store(self, scratch: Path, draft: Path, manifest: Manifest, *, durable: bool) -> Manifest:
        """Flush and digest, both at once: one waits for the disk, the other for the processors. Else neither."""
        files = files_below(scratch)
        with ThreadPoolExecutor(1, "flush") as flusher:
            flushed = flusher.submit(flush, files if durable else [])
            pieces = {
                str(path.relative_to(draft)): self._piece(path, manifest.id, draft, digested=durable) for path in files
            }
            flushed.result()
        return replace(manifest, pieces=pieces)

    def _piece(self, path: Path, checkpoint_id: str, draft: Path, *, digested: bool) -> Piece:
        path.chmod(0o600)
        with open(path, "rb", buffering=0) as file:
            digest = digest_of(file.fileno()) if digested else None
            found = os.fstat(file.fileno())
        self._remember(checkpoint_id, str(path.relative_to(draft)), found, digest)
        return Piece(found.st_size, found.st_blocks * 512, digest)

    @contextlib.contextmanager
    def opened(self, folder: Path, manifest: Manifest, kind: SnapshotKind) -> Generator[Path]:
        """The folder of what a start of this kind reads, every byte checked. Raises CheckpointUnusable."""
        for name, piece in parts_of(manifest, kind).items():
            self._verify(folder, manifest.id, name, piece)
        yield folder / PARTS[kind]

    def _verify(self, folder: Path, checkpoint_id: str, name: str, piece: Piece) -> None:
        try:
            with open(folder / name, "rb", buffering=0) as file:
                found = os.fstat(file.fileno())
                seen = self._seen.get(checkpoint_id, {}).get(name)
                digest = piece.digest if seen == (_identity(found), piece.digest) else digest_of(file.fileno())
        except OSError as error:
            raise CheckpointUnusable(f"cannot use checkpoint {checkpoint_id}: its {name} cannot be read") from error
        if (found.st_size, digest) != (piece.length, piece.digest):
            raise CheckpointUnusable(f"cannot use checkpoint {checkpoint_id}: its {name} is damaged")
        self._remember(checkpoint_id, name, found, digest)

    def _remember(self, checkpoint_id: str, name: str, found: os.stat_result, digest: str | None) -> None:
        self._seen.setdefault(checkpoint_id, {})[name] = (_identity(found), digest)

    def forget(self, checkpoint_id: str) -> None:
        self._seen.pop(checkpoint_id, None)


def parts_of(manifest: Manifest, kind: SnapshotKind) -> Mapping[str, Piece]:
    """The pieces that a start of this kind reads."""
    return {name: piece for name, piece in manifest.pieces.items() if name.startswith(f"{PARTS[kind]}/")}


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
