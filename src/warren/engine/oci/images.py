"""Template images as block devices: one loop device for each, so that all sandboxes share its cached pages."""

import os
import threading
from pathlib import Path

from warren.engine.oci.loop import attach, device_path


class Images:
    """Devices are held until `close`; mounts that use one keep it beyond that."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()

    def device(self, image: str) -> str:
        """The path of the device that shows `image`."""
        with self._lock:
            if image not in self._held:
                self._held[image] = attach(Path(image), read_only=True)
            return device_path(self._held[image])

    def close(self) -> None:
        with self._lock:
            for fd in self._held.values():
                os.close(fd)
            self._held.clear()
