"""The reference store's part about volumes."""

from collections.abc import Sequence
from dataclasses import replace

from warren.model.errors import AlreadyExists, VolumeNotFound
from warren.model.project import ProjectLimits
from warren.model.sandbox import Sandbox
from warren.model.volume import Volume
from warren.store.memory_sleep import MemorySleep
from warren.store.volumes import check_quota


class MemoryVolumes(MemorySleep):
    def __init__(self) -> None:
        super().__init__()
        self._volumes: dict[str, Volume] = {}

    async def add_volume(self, volume: Volume, quota: ProjectLimits) -> None:
        own = [one for one in self._volumes.values() if one.project_id == volume.project_id]
        same = next((one for one in own if one.name == volume.name), None)
        if same is not None:
            if same.id == volume.id:
                return
            raise AlreadyExists(f"cannot create the volume: {volume.name!r} exists; choose another name")
        check_quota(volume, quota, len(own), sum(one.size_mb for one in own))
        self._volumes[volume.id] = volume

    async def mark_volume_ready(self, volume_id: str) -> None:
        if volume_id in self._volumes:
            self._volumes[volume_id] = replace(self._volumes[volume_id], ready=True)

    async def volume(self, volume_id: str) -> Volume | None:
        found = self._volumes.get(volume_id)
        return found if found is not None and found.ready else None

    async def named_volume(self, project_id: str, name: str) -> Volume | None:
        return next((one for one in await self.volumes(project_id) if one.name == name), None)

    async def volumes(self, project_id: str) -> Sequence[Volume]:
        own = (one for one in self._volumes.values() if one.project_id == project_id and one.ready)
        return sorted(own, key=lambda one: (one.created_at, one.id))

    async def claim_volume_removal(self, volume_id: str) -> Sequence[str]:
        found = await self.volume(volume_id)
        if found is None:
            return []
        live = (row for row in self._sandboxes.values() if row.state.is_live)
        users = sorted(row.id for row in live if any(mount.volume_id == volume_id for mount in row.volumes))
        if not users:
            self._volumes[volume_id] = replace(found, ready=False)
        return users

    async def forget_volume(self, volume_id: str) -> None:
        self._volumes.pop(volume_id, None)

    async def unfinished_volumes(self, server_id: str) -> Sequence[Volume]:
        left = (one for one in self._volumes.values() if one.server_id == server_id and not one.ready)
        return sorted(left, key=lambda one: (one.created_at, one.id))

    def _check_volumes(self, sandbox: Sandbox) -> None:
        for mount in sandbox.volumes:
            found = self._volumes.get(mount.volume_id)
            if found is None or not found.ready or found.project_id != sandbox.project_id:
                raise VolumeNotFound.of(mount.name)
