"""Handler of the warm pool's state; Warren's own, the wire contract knows nothing like it."""

from fastapi import Request

from warren.api.context import context
from warren.api.sandboxes import Who
from warren.api.schemas import PoolOut


async def pools(request: Request, who: Who) -> list[PoolOut]:
    """Of the templates that the project may use: what others keep ready is not its business."""
    return [
        PoolOut(
            templateID=level.template.id,
            names=list(level.template.names),
            runtime=level.kind.runtime,
            cpuCount=level.kind.resources.cpu_count,
            memoryMB=level.kind.resources.memory_mb,
            diskSizeMB=level.kind.resources.disk_mb,
            ready=level.ready,
            wanted=level.wanted,
        )
        for level in context(request).spares.levels()
        if level.template.project_id in (None, who.project.id)
    ]
