"""Volumes of this machine (`warren.contracts.volumes.Volumes`).

Each is mounted once, in the run folder, when somebody first uses it: a sandbox, or a call. When nobody does any more
it stays mounted for a while and is then unmounted. A server that opens goes on with what it finds mounted.
"""

import asyncio
import contextlib
import errno
import os
import shutil
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from warren.engine.oci import volume_image
from warren.engine.oci.places import Places
from warren.engine.oci.threads import on_thread, to_the_end
from warren.engine.oci.volume_errors import told
from warren.engine.oci.volume_tree import Tree
from warren.engine.oci.volume_upload import Upload
from warren.model import limits
from warren.model.errors import AlreadyExists, EngineFailed, NoSpace, VolumeInUse, VolumeNotFound
from warren.model.volume import VOLUME_ID, Attributes, VolumeEntry

T = TypeVar("T")
MIB = 1024 * 1024
SPARE_BYTES = 256 * MIB
"""Of the disk, that must be free for a new volume: running sandboxes write there, and the database."""

log = structlog.get_logger(__name__)


class OciVolumes:
    """`used` counts who has a volume now: sandboxes, and calls at work. Only the event loop changes it."""

    def __init__(self, places: Places, overcommit: int) -> None:
        self._places, self._overcommit = places, overcommit
        self._used: Counter[str] = Counter()
        self._left: dict[str, float] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._ready: set[str] = set()
        self._keeper: asyncio.Task[None] | None = None

    def open(self, used: Iterable[str]) -> None:
        """Go on with what is mounted; `used` are those of the sandboxes that run, once for each."""
        self._used.update(used)
        for folder in self._places.mounts.iterdir():
            self._left[folder.name] = time.monotonic()
        self._keeper = asyncio.create_task(self._keep(), name="volumes")  # noqa: TID251  # ended by close()

    async def close(self) -> None:
        """Unmount all but those of sandboxes, which go on."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
            await on_thread(self._unmount_unused, list(self._left))
        self._used.clear()
        self._left.clear()
        self._ready.clear()

    async def make(self, volume_id: str, size_mb: int) -> None:
        await on_thread(self._make, volume_id, size_mb)

    def _make(self, volume_id: str, size_mb: int) -> None:
        image = self._image(volume_id)
        if image.exists():
            raise AlreadyExists(f"cannot make volume {volume_id}: that id is in use")
        disk = shutil.disk_usage(image.parent)
        promised = sum(other.stat().st_size for other in image.parent.glob(f"*{volume_image.SUFFIX}"))
        if disk.free < SPARE_BYTES or promised + size_mb * MIB > disk.total * self._overcommit:
            raise NoSpace(
                f"cannot make a volume of {size_mb} MiB: the state folder's disk has {disk.free // MIB} MiB free, and "
                f"{promised // MIB} MiB are promised to volumes; delete some"
            )
        try:
            volume_image.make(image, size_mb)
        except OSError as error:
            raise _disk_error(f"make volume {volume_id}", error) from error

    async def remove(self, volume_id: str) -> None:
        if self._used[volume_id]:
            raise VolumeInUse(f"cannot delete volume {volume_id}: it is in use")
        if VOLUME_ID.fullmatch(volume_id):
            await on_thread(self._remove, volume_id)

    def _remove(self, volume_id: str) -> None:
        with self._locks[volume_id]:
            try:
                volume_image.unmount(self._places.mounts / volume_id)
                volume_image.remove(self._image(volume_id))
            except OSError as error:
                raise _disk_error(f"delete volume {volume_id}", error) from error
            self._ready.discard(volume_id)

    async def volumes(self) -> Sequence[str]:
        return [image.stem for image in self._places.volumes.glob(f"*{volume_image.SUFFIX}")]

    async def stat(self, volume_id: str, path: str) -> VolumeEntry:
        return await self._do(volume_id, lambda tree: tree.stat(path))

    async def list(self, volume_id: str, path: str, depth: int) -> Sequence[VolumeEntry]:
        return await self._do(volume_id, lambda tree: tree.list(path, depth))

    async def make_dir(self, volume_id: str, path: str, attributes: Attributes, *, force: bool) -> VolumeEntry:
        return await self._do(volume_id, lambda tree: tree.make_dir(path, attributes, force=force))

    async def change(self, volume_id: str, path: str, attributes: Attributes) -> VolumeEntry:
        return await self._do(volume_id, lambda tree: tree.change(path, attributes))

    async def delete(self, volume_id: str, path: str) -> None:
        await self._do(volume_id, lambda tree: tree.delete(path))

    async def read(self, volume_id: str, path: str) -> AsyncGenerator[bytes]:
        opened: deque[int] = deque()
        async with self._in_use(volume_id):
            try:
                await self._with_tree(volume_id, lambda tree: opened.append(tree.open_file(path)))
                yield b""
                while content := await on_thread(_read, opened[0], path):
                    yield content
            finally:
                for fd in opened:
                    os.close(fd)

    async def write(
        self, volume_id: str, path: str, content: AsyncIterable[bytes], attributes: Attributes, *, force: bool
    ) -> VolumeEntry:
        async with self._in_use(volume_id):
            await on_thread(self._prepare, volume_id)
            upload = Upload(self._places.mounts / volume_id, path)
            try:
                await on_thread(upload.begin, force=force)
                async for chunk in content:
                    await on_thread(upload.write, chunk)
                return await on_thread(upload.commit, attributes, force=force)
            finally:
                await to_the_end(on_thread(upload.close))

    async def take(self, volume_ids: Sequence[str]) -> None:
        """Have them mounted for a sandbox, until `give_back`. After an error none is taken."""
        self._used.update(volume_ids)
        try:
            for volume_id in volume_ids:
                await on_thread(self._prepare, volume_id)
        except BaseException:
            self.give_back(volume_ids)
            raise

    def give_back(self, volume_ids: Iterable[str]) -> None:
        for volume_id in volume_ids:
            self._used[volume_id] -= 1
            if not self._used[volume_id]:
                del self._used[volume_id]
                self._left[volume_id] = time.monotonic()

    @contextlib.asynccontextmanager
    async def _in_use(self, volume_id: str) -> AsyncGenerator[None]:
        self._used[volume_id] += 1
        try:
            yield
        finally:
            self.give_back([volume_id])

    async def _do(self, volume_id: str, work: Callable[[Tree], T]) -> T:
        async with self._in_use(volume_id):
            return await self._with_tree(volume_id, work)

    async def _with_tree(self, volume_id: str, work: Callable[[Tree], T]) -> T:
        def opened() -> T:
            self._prepare(volume_id)
            with Tree(self._places.mounts / volume_id) as tree:
                return work(tree)

        return await on_thread(opened)

    def _prepare(self, volume_id: str) -> None:
        """Mount it; the first time also clear away what a crash has left half-done."""
        image, target = self._image(volume_id), self._places.mounts / volume_id
        with self._locks[volume_id]:
            if not image.exists():
                raise VolumeNotFound(f"cannot find volume {volume_id} on this machine's disk")
            volume_image.mount(image, target)
            if volume_id not in self._ready:
                with Tree(target) as tree:
                    tree.staging.clear()
                self._ready.add(volume_id)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(limits.VOLUME_IDLE_S / 4)
            long_ago = time.monotonic() - limits.VOLUME_IDLE_S
            idle = [volume_id for volume_id, since in self._left.items() if since < long_ago]
            if idle:
                await on_thread(self._unmount_unused, idle)
                for volume_id in idle:
                    if not self._used[volume_id] and self._left.get(volume_id, long_ago) <= long_ago:
                        self._left.pop(volume_id, None)

    def _unmount_unused(self, volume_ids: Iterable[str]) -> None:
        for volume_id in volume_ids:
            with self._locks[volume_id]:
                if self._used[volume_id]:
                    continue
                try:
                    volume_image.unmount(self._places.mounts / volume_id)
                except OSError as error:
                    log.error("volume not unmounted", volume=volume_id, error=error.strerror)

    def _image(self, volume_id: str) -> Path:
        if not VOLUME_ID.fullmatch(volume_id):
            raise VolumeNotFound(f"cannot find volume {volume_id!r}")
        return self._places.volumes / f"{volume_id}{volume_image.SUFFIX}"


def _read(fd: int, path: str) -> bytes:
    with told(path):
        return os.read(fd, limits.VOLUME_CHUNK_BYTES)


def _disk_error(what: str, error: OSError) -> NoSpace | EngineFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"cannot {what}: the disk is full")
    return EngineFailed(f"cannot {what}: {error.strerror}")
