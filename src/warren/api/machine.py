"""Handlers of `/machine`: what this machine has, and what of it is promised; the room that a prune makes."""

from typing import Any

from fastapi import Request

from warren.api.auth import root
from warren.api.context import context
from warren.api.schemas import PruneOut
from warren.api.scrape import require_local_or_key
from warren.model import limits


async def machine(request: Request) -> dict[str, Any]:
    """Counts over all projects, so for whom `GET /metrics` is. Raises Unauthenticated."""
    await require_local_or_key(request)
    use = context(request)
    room = await use.sandboxes.room()
    return {
        "sandboxes": room.sandboxes,
        "spares": sum(level.ready for level in use.spares.levels()),
        "memoryMB": {
            "total": room.machine.memory_total,
            "available": room.machine.memory_available,
            "committed": room.memory_committed,
            "limit": room.memory_limit,
        },
        "diskMB": {
            "total": room.machine.disk_total,
            "free": room.machine.disk_free,
            "committed": room.disk_committed,
            "limit": room.disk_limit,
        },
    }


async def prune(request: Request) -> PruneOut:
    """Of all projects. Raises Unauthenticated, Forbidden."""
    await root(request)
    gone = await context(request).garbage.collect(limits.PRUNE_KEPT_S)
    return PruneOut(images=gone.images, layers=gone.layers, bytes=gone.bytes)
