"""What builds and fetches have left and nobody uses: cached layers and finished images. Found and deleted here alone.

An image is needed while a tag, a sandbox that runs or is paused, a snapshot or a build at work stands on it; a
checkpoint while a row names it or a built-in template starts from it. All else is a cache: it stays until it has not
been used for long, or there is too much of it.
"""

import asyncio
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog

from warren.contracts.building import ImageSource
from warren.contracts.clock import Clock
from warren.contracts.engine import Engine
from warren.contracts.store import Store
from warren.control.build_layers import Layers, Leaving
from warren.control.checkpoints import Checkpoints
from warren.control.leases import Leases
from warren.control.templates import KeptImage, TemplateFiles
from warren.model import limits
from warren.model.errors import WarrenError

log = structlog.get_logger(__name__)

_MIB = 1024 * 1024


class _Kept(Protocol):
    @property
    def bytes(self) -> int: ...
    @property
    def used_at(self) -> float: ...


Item = TypeVar("Item", bound=_Kept)


@dataclass(frozen=True, slots=True)
class Collected:
    """How many went, and the bytes that are free now."""

    images: int
    layers: int
    bytes: int


class Garbage:
    """`memories`: checkpoints that built-in templates start from, by `memory_key`."""

    def __init__(
        self,
        *,
        engine: Engine,
        store: Store,
        clock: Clock,
        images: TemplateFiles,
        source: ImageSource | None,
        layers: Layers,
        checkpoints: Checkpoints,
        leases: Leases,
        memories: Mapping[str, str],
    ) -> None:
        self._engine, self._store, self._clock = engine, store, clock
        self._images, self._source, self._layers = images, source, layers
        self._checkpoints, self._leases, self._memories = checkpoints, leases, memories

    async def tidy(self) -> None:
        """`collect` within the ordinary limits; what fails is tried again at the next one."""
        try:
            await self.collect()
        except (WarrenError, OSError) as error:
            log.warning("garbage not collected; the next sweep tries again", error=str(error))

    async def collect(self, kept_s: float | None = None) -> Collected:
        """Delete what nobody needs and nobody used for so long, by default the limits' time, and what is too much."""
        layers = await self._collect_layers(limits.LAYERS_KEPT_S if kept_s is None else kept_s)
        images = await self._collect_images(limits.IMAGES_KEPT_S if kept_s is None else kept_s)
        size = sum(layer.bytes for layer in layers) + sum(image.bytes for image in images)
        collected = Collected(len(images), len(layers), size)
        if images or layers:
            log.info("garbage collected", images=collected.images, layers=collected.layers, bytes=collected.bytes)
        return collected

    async def _collect_layers(self, kept_s: float) -> list[_Kept]:
        held = self._leases.all()  # before and after the look at rows: a build may end meanwhile, or begin
        needed = await self._store.referenced_checkpoints() | held | self._leases.all() | set(self._memories.values())
        # From here to the last entry nothing else runs: a build finds an entry with what it names, or neither.
        unneeded = [layer for layer in self._layers.all() if layer.value not in needed]
        going = surplus(unneeded, self._now(), kept_s, limits.LAYERS_KEPT_MB)
        for layer in going:
            self._layers.drop(layer.key, layer.kind)
        checkpoints = [layer for layer in going if layer.kind is not Leaving.IMAGE]
        for layer in checkpoints:
            await self._checkpoints.forget(layer.value)
        return list(checkpoints)

    async def _collect_images(self, kept_s: float) -> list[_Kept]:
        held = self._leases.all()
        needed = await self._store.referenced_images() | held
        found = await asyncio.to_thread(self._images.all)
        for image in found:
            if image.digest in needed:
                self._images.use(image.digest)  # its time as a cache begins when nothing stands on it any more
        unneeded = [image for image in found if image.digest not in needed]
        going = surplus(unneeded, self._now(), kept_s, limits.IMAGES_KEPT_MB, fresh_s=limits.PRUNE_KEPT_S)
        gone = [image for image in going if await self._remove(image)]
        digests = frozenset(image.digest for image in gone)
        for layer in list(self._layers.all()):
            if layer.kind is Leaving.IMAGE and layer.value in digests:
                self._layers.drop(layer.key, layer.kind)
        if self._source is not None and digests:
            await asyncio.to_thread(self._source.forget, digests)
        return list(gone)

    async def _remove(self, image: KeptImage) -> bool:
        """False where somebody has begun with it: who holds it or uses it does so on the thread that this runs on."""
        aside = None if image.digest in self._leases.all() else self._images.put_aside(image)
        if aside is None:
            return False
        await self._engine.drop_image(self._images.at(image.digest))
        await asyncio.to_thread(shutil.rmtree, aside)
        return True

    def _now(self) -> float:
        return self._clock.now().timestamp()


def surplus(found: Iterable[Item], now: float, kept_s: float, kept_mb: int, *, fresh_s: float = 0.0) -> list[Item]:
    """What has not been used for long, and what is beyond the room; the longest unused first, nothing that is fresh.

    What has no size of its own goes by its age alone.
    """
    in_turn = sorted(found, key=lambda item: item.used_at)
    size = sum(item.bytes for item in in_turn)
    going: list[Item] = []
    for item in in_turn:
        age = now - item.used_at
        is_too_much = size > kept_mb * _MIB and item.bytes > 0
        if age < fresh_s or (age < kept_s and not is_too_much):
            continue
        size -= item.bytes
        going.append(item)
    return going
