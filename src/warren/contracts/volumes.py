"""Volumes: files on an engine's disk that outlive sandboxes, the server and the machine's power.

    make ──► any number of sandboxes mount it (`SandboxSpec.volumes`) ──► remove

Its files are changed from inside sandboxes and through the methods here, both at once; each sees at once what the
others did. Whoever is inside is hostile: no path, link or special file in a volume leads outside of it.

Paths are absolute and clean (`model.volume.entry_path`), `/` is the volume's root; links are followed within the
volume, the last part of a path only where a method says so. Methods on paths raise VolumeNotFound for an unknown
volume, PathNotFound for what is not there, BadRequest for what can never work (a file as directory, a name too long),
NoSpace when the volume or the disk below it is full, EngineFailed when the disk is broken.

`tests/contract/volume_suite.py` holds the checks that every implementation passes.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from typing import Protocol

from warren.model.volume import Attributes, VolumeEntry


class Volumes(Protocol):
    async def make(self, volume_id: str, size_mb: int) -> None:
        """An empty volume of a fixed size. Not idempotent: an id is used once. After an error nothing is left.

        Raises AlreadyExists, NoSpace.
        """
        ...

    async def remove(self, volume_id: str) -> None:
        """Delete it with all its files. Idempotent: an unknown id is success. Safe to retry.

        Raises VolumeInUse while a sandbox of this engine has it mounted.
        """
        ...

    async def volumes(self) -> Sequence[str]:
        """The ids of those on this disk, in no order."""
        ...

    async def stat(self, volume_id: str, path: str) -> VolumeEntry:
        """Of the entry itself: a link is not followed."""
        ...

    async def list(self, volume_id: str, path: str, depth: int) -> Sequence[VolumeEntry]:
        """What is in a directory, and below it down to `depth` levels; links are listed, not followed.

        By path. Raises BadRequest for what is no directory, and for more than `limits.VOLUME_ENTRIES_MAX` entries.
        """
        ...

    async def make_dir(self, volume_id: str, path: str, attributes: Attributes, *, force: bool) -> VolumeEntry:
        """A directory; `force` makes its parents too, and finds one that exists good. Otherwise AlreadyExists.

        What is not said of owner and mode is the parent's owner and 0755.
        """
        ...

    async def change(self, volume_id: str, path: str, attributes: Attributes) -> VolumeEntry:
        """Owner and mode. A link is followed. Raises BadRequest for what is neither file nor directory."""
        ...

    async def delete(self, volume_id: str, path: str) -> None:
        """A file, a link itself, or a directory with all that is in it; at once and as a whole for everybody else.

        Raises BadRequest for the root.
        """
        ...

    def read(self, volume_id: str, path: str) -> AsyncGenerator[bytes]:
        """A regular file's content; the first item is empty and says that it is there. Close what you do not finish.

        A link is followed. Raises BadRequest for anything but a file, also for one that would make the reader wait.
        """
        ...

    async def write(
        self, volume_id: str, path: str, content: AsyncIterable[bytes], attributes: Attributes, *, force: bool
    ) -> VolumeEntry:
        """Put `content` in place of what is at `path`, whole or not at all: it is on the disk once this returns.

        `force` makes the parents too. A link is replaced, not followed. What is not said of owner and mode stays that
        of the file before, or is the parent's owner and 0644. After an error or a cancellation nothing has changed.
        """
        ...
