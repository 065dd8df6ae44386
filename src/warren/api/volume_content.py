"""Handlers of the files of volumes (wire contract 2.4): any size, both ways, never whole in memory."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import Depends, Query, Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from warren.api import encoding, trail
from warren.api.auth import bearer
from warren.api.context import context
from warren.api.schemas import EntryChange, VolumeEntryStat
from warren.model import limits
from warren.model.errors import BadRequest, Timeout, Unauthenticated
from warren.model.volume import Attributes, Volume


async def holder(request: Request, volume_id: str) -> Volume:
    """The volume that the token of the request opens."""
    token = bearer(request)
    if not token:
        raise Unauthenticated("authorization header is missing: send the volume's token as Bearer")
    volume = await context(request).volume_files.open(volume_id, token)
    trail.act_for(request, volume.project_id, "")
    return volume


Held = Annotated[Volume, Depends(holder)]
Depth = Annotated[int, Query(ge=1, le=limits.VOLUME_DEPTH_MAX)]


def attributes(uid: int | None = None, gid: int | None = None, mode: int | None = None) -> Attributes:
    return Attributes(uid, gid, mode)


Asked = Annotated[Attributes, Depends(attributes)]


async def list_dir(request: Request, held: Held, path: str, depth: Depth = 1) -> list[VolumeEntryStat]:
    return [encoding.entry_out(one) for one in await context(request).volume_files.list(held, path, depth)]


async def make_dir(request: Request, held: Held, asked: Asked, path: str, force: bool = False) -> VolumeEntryStat:
    return encoding.entry_out(await context(request).volume_files.make_dir(held, path, asked, force=force))


async def stat(request: Request, held: Held, path: str) -> VolumeEntryStat:
    return encoding.entry_out(await context(request).volume_files.stat(held, path))


async def change(request: Request, held: Held, path: str, body: EntryChange) -> VolumeEntryStat:
    asked = Attributes(body.uid, body.gid, body.mode)
    return encoding.entry_out(await context(request).volume_files.change(held, path, asked))


async def delete(request: Request, held: Held, path: str) -> Response:
    await context(request).volume_files.delete(held, path)
    return Response(status_code=204)


async def read(request: Request, held: Held, path: str) -> Response:
    content = context(request).volume_files.read(held, path)
    await anext(content)  # what is wrong with the path is said before the answer begins
    return _Download(content)


async def write(request: Request, held: Held, asked: Asked, path: str, force: bool = False) -> VolumeEntryStat:
    content = _arriving(request)
    return encoding.entry_out(await context(request).volume_files.write(held, path, content, asked, force=force))


class _Download(StreamingResponse):
    """Lets go of the file however the answer ends, also before it began."""

    def __init__(self, content: AsyncGenerator[bytes]) -> None:
        super().__init__(content, media_type="application/octet-stream")
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._content):
            await super().__call__(scope, receive, send)


async def _arriving(request: Request) -> AsyncIterator[bytes]:
    """In chunks of a size that is worth a write. Raises BadRequest when the client goes, Timeout when it stalls."""
    stream, held = request.stream(), bytearray()
    while True:
        try:
            async with asyncio.timeout(limits.VOLUME_STALL_S):
                chunk = await anext(stream, None)
        except ClientDisconnect:
            raise BadRequest("cannot take half a file: the connection ended before the upload did") from None
        except TimeoutError:
            raise Timeout(f"cannot wait longer: nothing came for {limits.VOLUME_STALL_S:g} s") from None
        if chunk is None:
            break
        held += chunk
        if len(held) >= limits.VOLUME_CHUNK_BYTES:
            yield bytes(held)
            held.clear()
    yield bytes(held)
