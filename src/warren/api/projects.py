"""Handlers of teams (our projects), API keys and health."""

from typing import Any

from fastapi import Request, Response

from warren.api import encoding, trail
from warren.api.context import context
from warren.api.sandboxes import Who
from warren.api.schemas import KeyName


async def health() -> Response:
    return Response(status_code=204)


async def teams(request: Request, who: Who) -> list[dict[str, Any]]:
    """`apiKey` is the key that came with the request: keys are stored only as digests."""
    kept = await context(request).snapshots.usage(who.project)
    return [
        {
            "teamID": who.project.id,
            "name": who.project.name,
            "apiKey": who.secret,
            "isDefault": True,
            "snapshotUsage": encoding.usage_out(kept, who.project),
        }
    ]


async def list_keys(request: Request, who: Who) -> list[dict[str, Any]]:
    return [encoding.key_out(key) for key in await context(request).keys.list(who.project)]


async def create_key(request: Request, who: Who, body: KeyName) -> dict[str, Any]:
    """The only answer that ever holds `key`."""
    key, secret = await context(request).keys.create(who.project, body.name)
    trail.about(request, "key", key.id)
    return {**encoding.key_out(key), "key": secret}


async def rename_key(request: Request, who: Who, key_id: str, body: KeyName) -> Response:
    await context(request).keys.rename(who.project, key_id, body.name)
    return Response(status_code=204)


async def revoke_key(request: Request, who: Who, key_id: str) -> Response:
    await context(request).keys.revoke(who.project, key_id)
    return Response(status_code=204)
