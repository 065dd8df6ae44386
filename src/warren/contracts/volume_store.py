"""The part of the store that keeps volumes; the rules of `contracts.store` hold here too.

    add (not ready) ──► mark ready ──► claim removal (not ready) ──► forget

What a crash leaves not ready, its server removes at its next start. No file is ever deleted because a row is missing.
`tests/contract/volume_store_suite.py` holds the checks that every implementation passes.
"""

from collections.abc import Sequence
from typing import Protocol

from warren.model.project import ProjectLimits
from warren.model.volume import Volume


class Volumes(Protocol):
    async def add_volume(self, volume: Volume, quota: ProjectLimits) -> None:
        """Insert, not ready. Raises AlreadyExists for a name in use, LimitReached above `volumes` or `volume_mb`."""
        ...

    async def mark_volume_ready(self, volume_id: str) -> None: ...

    async def volume(self, volume_id: str) -> Volume | None:
        """A ready one, of whatever project."""
        ...

    async def named_volume(self, project_id: str, name: str) -> Volume | None:
        """A ready one."""
        ...

    async def volumes(self, project_id: str) -> Sequence[Volume]:
        """Ready ones, oldest first."""
        ...

    async def claim_volume_removal(self, volume_id: str) -> Sequence[str]:
        """The ids of the live sandboxes that have it, asleep or not; when there are none, it is not ready from now on.

        One transaction, as `add_sandbox` is, so that no sandbox gets it meanwhile.
        """
        ...

    async def forget_volume(self, volume_id: str) -> None:
        """Idempotent."""
        ...

    async def unfinished_volumes(self, server_id: str) -> Sequence[Volume]:
        """Of all projects, those of this server that are not ready."""
        ...
