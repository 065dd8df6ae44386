"""The files of volumes, for whoever holds a volume's token."""

import hmac
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Sequence
from contextlib import contextmanager

from warren.contracts.engine import Engine
from warren.contracts.store import Store
from warren.control.tokens import Tokens
from warren.model import limits
from warren.model.errors import LimitReached, Unauthenticated, VolumeNotFound
from warren.model.volume import Attributes, Volume, VolumeEntry, entry_path


class VolumeFiles:
    """All methods on paths raise what `contracts.volumes` says, and LimitReached while too many calls are at work."""

    def __init__(self, *, engine: Engine, store: Store, tokens: Tokens) -> None:
        self._engine, self._store, self._tokens = engine, store, tokens
        self._at_work: Counter[str] = Counter()

    async def open(self, volume_id: str, token: str) -> Volume:
        """Raises Unauthenticated, whether or not there is such a volume; VolumeNotFound for one that is gone."""
        if not hmac.compare_digest(token.encode(), self._tokens.volume(volume_id).encode()):
            raise Unauthenticated("cannot accept this volume token: it is unknown; get one from GET /volumes/{id}")
        volume = await self._store.volume(volume_id)
        if volume is None:
            raise VolumeNotFound.of(volume_id)
        return volume

    async def stat(self, volume: Volume, path: str) -> VolumeEntry:
        with self._call(volume):
            return await self._engine.volumes.stat(volume.id, entry_path(path))

    async def list(self, volume: Volume, path: str, depth: int) -> Sequence[VolumeEntry]:
        with self._call(volume):
            return await self._engine.volumes.list(volume.id, entry_path(path), depth)

    async def make_dir(self, volume: Volume, path: str, attributes: Attributes, *, force: bool) -> VolumeEntry:
        attributes.check()
        with self._call(volume):
            return await self._engine.volumes.make_dir(volume.id, entry_path(path), attributes, force=force)

    async def change(self, volume: Volume, path: str, attributes: Attributes) -> VolumeEntry:
        attributes.check()
        with self._call(volume):
            return await self._engine.volumes.change(volume.id, entry_path(path), attributes)

    async def delete(self, volume: Volume, path: str) -> None:
        with self._call(volume):
            await self._engine.volumes.delete(volume.id, entry_path(path))

    async def read(self, volume: Volume, path: str) -> AsyncGenerator[bytes]:
        """The first item is empty and says that the file is there."""
        with self._call(volume):
            content = self._engine.volumes.read(volume.id, entry_path(path))
            try:
                async for chunk in content:
                    yield chunk
            finally:
                await content.aclose()

    async def write(
        self, volume: Volume, path: str, content: AsyncIterable[bytes], attributes: Attributes, *, force: bool
    ) -> VolumeEntry:
        attributes.check()
        with self._call(volume):
            return await self._engine.volumes.write(volume.id, entry_path(path), content, attributes, force=force)

    @contextmanager
    def _call(self, volume: Volume) -> Generator[None]:
        if self._at_work[volume.id] >= limits.VOLUME_CALLS_AT_ONCE:
            raise LimitReached(
                f"cannot work on volume {volume.name!r}: {limits.VOLUME_CALLS_AT_ONCE} calls are at work on it; wait"
            )
        self._at_work[volume.id] += 1
        try:
            yield
        finally:
            self._at_work[volume.id] -= 1
            if not self._at_work[volume.id]:
                del self._at_work[volume.id]
