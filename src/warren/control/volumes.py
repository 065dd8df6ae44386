"""Volumes of projects: made, described, mounted into sandboxes, deleted."""

from collections.abc import Sequence

import structlog

from warren.contracts.clock import Clock, Ids
from warren.contracts.engine import Engine
from warren.contracts.store import Store
from warren.control.elsewhere import name_of_server
from warren.control.tokens import Tokens
from warren.control.work import Work
from warren.model import limits
from warren.model.errors import (
    AlreadyExists,
    BadRequest,
    ServerAway,
    VolumeInUse,
    VolumeNotFound,
    WarrenError,
)
from warren.model.project import Project
from warren.model.volume import VOLUME_NAME, Volume, VolumeMount, check_mounts

log = structlog.get_logger(__name__)

_NAMED = 10
"""Sandboxes that a refusal names."""


class Volumes:
    """A volume is on the disk of the server that made it; what needs that disk is refused by others: ServerAway."""

    def __init__(
        self, *, server_id: str, engine: Engine, store: Store, clock: Clock, ids: Ids, tokens: Tokens, work: Work,
        default_mb: int,
    ) -> None:  # fmt: skip
        self._server_id, self._engine, self._store = server_id, engine, store
        self._clock, self._ids, self._tokens, self._work = clock, ids, tokens, work
        self._default_mb = default_mb

    async def create(self, project: Project, name: str, size_mb: int | None) -> Volume:
        """Raises BadRequest, also for a name in use, LimitReached, NoSpace, EngineFailed."""
        size = self._default_mb if size_mb is None else size_mb
        if not VOLUME_NAME.fullmatch(name):
            raise BadRequest(f"cannot use {name!r} as the name of a volume: write 1 to 128 of a-z A-Z 0-9 _ -")
        if size < limits.MIN_VOLUME_MB:
            raise BadRequest(f"cannot make a volume of {size} MiB: the least is {limits.MIN_VOLUME_MB}")
        volume = Volume(self._ids.volume_id(), project.id, name, size, self._clock.now(), self._server_id)
        try:
            await self._store.add_volume(volume, project.limits)
        except AlreadyExists as error:  # a bad request to clients of the wire contract (6.3.3)
            raise BadRequest(error.message) from error
        return await self._work.finish(self._make(volume), f"make volume {volume.id}")

    async def _make(self, volume: Volume) -> Volume:
        try:
            await self._engine.volumes.make(volume.id, volume.size_mb)
        except WarrenError:
            await self._store.forget_volume(volume.id)
            raise
        await self._store.mark_volume_ready(volume.id)
        log.info("volume made", volume=volume.id, size_mb=volume.size_mb)
        return volume

    async def list(self, project: Project) -> Sequence[Volume]:
        return await self._store.volumes(project.id)

    async def get(self, project: Project, volume_id: str) -> Volume:
        """Raises VolumeNotFound, ServerAway."""
        volume = await self._store.volume(volume_id)
        if volume is None or volume.project_id != project.id:
            raise VolumeNotFound.of(volume_id)
        await self._refuse_elsewhere(volume)
        return volume

    def token(self, volume: Volume) -> str:
        """What opens its files to whoever has it."""
        return self._tokens.volume(volume.id)

    async def delete(self, project: Project, volume_id: str) -> None:
        """With all its files. Raises VolumeNotFound, ServerAway, VolumeInUse while sandboxes have it."""
        volume = await self.get(project, volume_id)
        await self._work.finish(self._delete(volume), f"delete volume {volume.id}")

    async def _delete(self, volume: Volume) -> None:
        users = await self._store.claim_volume_removal(volume.id)
        if users:
            named = ", ".join(users[:_NAMED]) + (" and more" if len(users) > _NAMED else "")
            raise VolumeInUse(f"cannot delete volume {volume.name!r}: sandboxes have it: {named}; kill those first")
        try:
            await self._engine.volumes.remove(volume.id)
        except VolumeInUse:
            await self._store.mark_volume_ready(volume.id)
            raise VolumeInUse(f"cannot delete volume {volume.name!r}: somebody is using its files just now") from None
        await self._store.forget_volume(volume.id)
        log.info("volume deleted", volume=volume.id)

    async def mounts(self, project: Project, wanted: Sequence[tuple[str, str, bool]]) -> tuple[VolumeMount, ...]:
        """Of (name, path, read only). Raises BadRequest, ServerAway."""
        check_mounts([(name, path) for name, path, _ in wanted])
        found: list[VolumeMount] = []
        for name, path, read_only in wanted:
            volume = await self._store.named_volume(project.id, name)
            if volume is None:
                raise BadRequest(f"cannot mount volume {name!r}: there is no such volume")
            await self._refuse_elsewhere(volume)
            found.append(VolumeMount(volume.id, volume.name, path, read_only))
        return tuple(found)

    async def recover(self) -> None:
        """Remove what a crash has left half made or half deleted."""
        for volume in await self._store.unfinished_volumes(self._server_id):
            try:
                await self._engine.volumes.remove(volume.id)
            except WarrenError as error:
                log.error("volume not removed; the next start tries again", volume=volume.id, error=error.message)
            else:
                await self._store.forget_volume(volume.id)
                log.info("half-made volume removed", volume=volume.id)

    async def _refuse_elsewhere(self, volume: Volume) -> None:
        if volume.server_id != self._server_id:
            name = await name_of_server(self._store, volume.server_id)
            raise ServerAway(
                f"cannot reach volume {volume.name!r} from here: it is on the server {name!r}; send this request there"
            )
