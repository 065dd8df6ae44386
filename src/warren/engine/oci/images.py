"""Template images as block devices: one loop device for each, so that all sandboxes share its cached pages."""

import os
import threading
from pathlib import Path

from warren.engine.oci.loop import attach, device_path
from warren.model.errors import EngineFailed


class Images:
    """Devices are held until `drop` or `close`; mounts that use one keep it beyond that."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int, int], int] = {}
        self._lock = threading.Lock()

    def device(self, image: str) -> str:
        """The path of the device that shows `image`."""
        try:
            found = os.stat(image)
        except OSError as error:
            raise EngineFailed(f"cannot open template image {image!r}: {error.strerror}") from None
        key = (image, found.st_ino, found.st_mtime_ns)  # a template built anew at the same path is another one
        with self._lock:
            if key not in self._held:
                self._held[key] = attach(Path(image), read_only=True)
            return device_path(self._held[key])

    def drop(self, image: str) -> None:
        """Hold no device of it any more."""
        with self._lock:
            for key in [key for key in self._held if key[0] == image]:
                os.close(self._held.pop(key))

    def close(self) -> None:
        with self._lock:
            for fd in self._held.values():
                os.close(fd)
            self._held.clear()
