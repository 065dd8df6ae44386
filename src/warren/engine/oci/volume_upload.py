"""One file on its way into a volume."""

import os
from pathlib import Path

from warren.engine.oci.volume_errors import told
from warren.engine.oci.volume_tree import Tree
from warren.model.volume import Attributes, VolumeEntry


class Upload:
    """`begin`, `write` any number of times, `commit`; `close` at the end anyway."""

    def __init__(self, mount: Path, path: str) -> None:
        self._tree = Tree(mount)
        self._is_open = False
        self._path = path
        self._fd = -1
        self._staged = ""

    def begin(self, *, force: bool) -> None:
        self._tree.__enter__()
        self._is_open = True
        self._tree.check_target(self._path, force=force)
        with told(self._path):
            self._fd, self._staged = self._tree.staging.new_file()

    def write(self, content: bytes) -> None:
        view = memoryview(content)
        with told(self._path):
            while view:
                view = view[os.write(self._fd, view) :]

    def commit(self, attributes: Attributes, *, force: bool) -> VolumeEntry:
        entry = self._tree.put(self._fd, self._staged, self._path, attributes, force=force)
        self._staged = ""
        return entry

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        if self._staged:
            self._tree.staging.drop_file(self._staged)
        if self._is_open:
            self._tree.__exit__()
