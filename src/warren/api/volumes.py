"""Handlers of the volume routes (wire contract 2.4)."""

from fastapi import Request, Response

from warren.api import encoding, trail
from warren.api.context import context
from warren.api.sandboxes import Who
from warren.api.schemas import NewVolume, VolumeAndToken, VolumeOut
from warren.model.volume import Volume


async def create(request: Request, response: Response, who: Who, body: NewVolume) -> VolumeAndToken:
    made = await context(request).volumes.create(who.project, body.name, body.sizeMB)
    trail.about(request, "volume", made.id)
    return _with_token(request, response, made)


async def list_volumes(request: Request, who: Who) -> list[VolumeOut]:
    return [encoding.volume_out(one) for one in await context(request).volumes.list(who.project)]


async def get(request: Request, response: Response, who: Who, volume_id: str) -> VolumeAndToken:
    return _with_token(request, response, await context(request).volumes.get(who.project, volume_id))


async def delete(request: Request, who: Who, volume_id: str) -> Response:
    await context(request).volumes.delete(who.project, volume_id)
    return Response(status_code=204)


def _with_token(request: Request, response: Response, volume: Volume) -> VolumeAndToken:
    response.headers["Cache-Control"] = "no-store"
    use = context(request)
    return VolumeAndToken(
        **encoding.volume_out(volume).model_dump(), token=use.volumes.token(volume), domain=use.domain
    )
