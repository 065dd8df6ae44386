"""What has been fetched, one small file for each manifest, and what this machine's root offers for one build."""

import json
import os
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

from warren.contracts.building import FetchedImage
from warren.images.fitting import FIT

OFFER_HOST = "warren.invalid"
"""No registry has this name (RFC 2606), so an offer is told from an image by it."""
_OFFER = "offer-"


class Shelf:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, manifest: str) -> FetchedImage | None:
        """None too where another version made it, or the file is damaged."""
        return self._read(self._path(manifest))

    def put(self, manifest: str, image: FetchedImage) -> None:
        self._write(self._path(manifest), image)

    def offer(self, image: FetchedImage) -> str:
        """A name that only who is told it can build from, until it is withdrawn."""
        token = secrets.token_hex(16)
        self._write(self._folder / f"{_OFFER}{token}.json", image)
        return f"{OFFER_HOST}/{token}"

    def offered(self, name: str) -> FetchedImage | None:
        token = name.removeprefix(f"{OFFER_HOST}/")
        return None if token.strip("0123456789abcdef") else self._read(self._folder / f"{_OFFER}{token}.json")

    def withdraw(self, name: str) -> None:
        (self._folder / f"{_OFFER}{name.removeprefix(f'{OFFER_HOST}/')}.json").unlink(missing_ok=True)

    def open(self) -> None:
        """Clear what a crash left half-written."""
        for partial in self._folder.glob("*.json.*"):
            partial.unlink()

    def forget(self, digests: frozenset[str]) -> None:
        """Offers of them too: whoever made one and did not withdraw it was killed."""
        for path in self._folder.glob("*.json"):
            image = self._read(path)
            if image is None or image.digest in digests:
                path.unlink(missing_ok=True)

    def _read(self, path: Path) -> FetchedImage | None:
        try:
            found: dict[str, Any] = json.loads(path.read_text())
            return FetchedImage(**found["image"]) if found["fit"] == FIT else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, path: Path, image: FetchedImage) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(json.dumps({"fit": FIT, "image": asdict(image)}))
        partial.rename(path)

    def _path(self, manifest: str) -> Path:
        return self._folder / f"{manifest.removeprefix('sha256:')}.json"
