"""What builds have left for the next ones: which checkpoint, image or memory has which key (`build_steps.chain`).

One small file for each, written whole, in a folder of this server: checkpoints are on its disk alone. What a crash
leaves is either a file that names something, or something that nothing names, which the sweep of checkpoints takes.
"""

import enum
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import structlog

log = structlog.get_logger(__name__)


class Leaving(enum.StrEnum):
    """FILES: a checkpoint of the files after a step. IMAGE: the digest of those files packed as an image. MEMORY: a
    checkpoint of the finished template with its services up."""

    FILES = "files"
    IMAGE = "image"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Layer:
    """`value` is a checkpoint's id or an image's digest; `bytes` what goes away with this entry."""

    key: str
    kind: Leaving
    value: str
    bytes: int
    used_at: float


class Layers:
    """The newest use is the file's time. Quick enough for the event loop: a few small files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for partial in folder.glob(".*"):
            partial.unlink()

    def find(self, key: str, kind: Leaving) -> str | None:
        """What has this key; it counts as used now."""
        path = self._path(key, kind)
        found = _read(path)
        if found is None:
            return None
        os.utime(path)
        return found.value

    def put(self, key: str, kind: Leaving, value: str, size: int = 0) -> str | None:
        """Remember it, in place of another that is returned."""
        path = self._path(key, kind)
        before = _read(path)
        partial = self._folder / f".{path.name}"
        with open(partial, "w") as file:
            json.dump({"value": value, "bytes": size}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        return before.value if before and before.value != value else None

    def drop(self, key: str, kind: Leaving) -> None:
        self._path(key, kind).unlink(missing_ok=True)

    def checkpoints(self) -> set[str]:
        """Those that entries name."""
        return {layer.value for layer in self.all() if layer.kind is not Leaving.IMAGE}

    def all(self) -> list[Layer]:
        """Those that can be read."""
        return list(self._read_all())

    def _read_all(self) -> Iterator[Layer]:
        for path in self._folder.iterdir():
            if not path.name.startswith(".") and (found := _read(path)) is not None:
                yield found

    def _path(self, key: str, kind: Leaving) -> Path:
        return self._folder / f"{key}.{kind.value}"


def _read(path: Path) -> Layer | None:
    """None for what is not there, and for what cannot be read: it is only logged, the step runs again."""
    try:
        document: Any = json.loads(path.read_bytes())
        fields = cast("dict[str, Any]", document)
        key, _, kind = path.name.partition(".")
        return Layer(key, Leaving(kind), str(fields["value"]), int(fields["bytes"]), path.stat().st_mtime)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("entry of the build cache not read", file=path.name, error=str(error))
        return None
