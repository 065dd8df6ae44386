"""What has been fetched: one small file for each manifest, saying which image was made of it."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from warren.contracts.building import FetchedImage
from warren.images.fitting import FIT


class Shelf:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, manifest: str) -> FetchedImage | None:
        """None too where another version made it, or the file is damaged."""
        try:
            found = json.loads(self._path(manifest).read_text())
            return FetchedImage(**found["image"]) if found["fit"] == FIT else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, manifest: str, image: FetchedImage) -> None:
        path = self._path(manifest)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(json.dumps({"fit": FIT, "image": asdict(image)}))
        partial.rename(path)

    def _path(self, manifest: str) -> Path:
        return self._folder / f"{manifest.removeprefix('sha256:')}.json"
