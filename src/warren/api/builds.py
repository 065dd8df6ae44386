"""Handlers of template builds and of the uploads for them (wire contract 2.3)."""

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import Path, Query, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from warren.api import template_encoding as encoding
from warren.api import trail
from warren.api.context import context
from warren.api.observation import UnixMillis, at_unix
from warren.api.sandboxes import Limit, Who
from warren.api.template_schemas import BuildLogs, BuildOut, BuildStart, NewTemplate, RequestedBuild, UploadOut
from warren.contracts.template_store import LineQuery
from warren.control.builds import BuildRequest
from warren.control.uploads import UploadLink
from warren.model import limits
from warren.model.build import LogLevel
from warren.model.errors import BadRequest

FilesHash = Annotated[str, Path(max_length=limits.MAX_TEXT_FIELD)]
Offset = Annotated[int, Query(ge=0, le=limits.BUILD_LOG_LINES)]
Signed = Annotated[str, Query(max_length=limits.MAX_TEXT_FIELD)]


async def create(request: Request, who: Who, body: NewTemplate) -> RequestedBuild:
    entry, build = await context(request).builds.request(who.project, _wanted(who.project.id, body))
    trail.about(request, "template", entry.id)
    return RequestedBuild(
        templateID=entry.id,
        buildID=build.id,
        public=entry.public,
        names=encoding.names_out(entry, who.project),
        tags=list(build.tags),
        aliases=list(entry.names),
    )


async def create_v2(request: Request, who: Who, body: NewTemplate) -> dict[str, Any]:
    """Older clients: a whole template in the answer, with the build that was registered as its build."""
    entry, build = await context(request).builds.request(who.project, _wanted(who.project.id, body))
    trail.about(request, "template", entry.id)
    return {**encoding.template_out(entry, who.project), "buildID": build.id}


def _wanted(project_id: str, body: NewTemplate) -> BuildRequest:
    name = body.name or body.alias
    if not name:
        raise BadRequest("Name is required")
    if body.teamID not in (None, project_id):
        raise BadRequest("Team ID param mismatch with the API key")
    return BuildRequest(
        name=name,
        tags=body.tags,
        cpu_count=body.cpuCount,
        memory_mb=body.memoryMB,
        free_disk_mb=body.minFreeDiskMb,
    )


async def upload_link(request: Request, who: Who, template_id: str, files_hash: FilesHash) -> UploadOut:
    """The link is for this server: the one that is to build."""
    use = context(request)
    entry = await use.templates.own(who.project, template_id)
    present = use.uploads.has(entry.id, files_hash)
    query = urlencode(use.uploads.link(entry.id, files_hash, who.project.id, who.key.id))
    return UploadOut(present=present, url=f"{request.base_url}templates/{entry.id}/files/{files_hash}?{query}")


async def upload(
    request: Request,
    template_id: str,
    files_hash: FilesHash,
    *,
    project: Signed,
    key: Signed,
    expires: Annotated[int, Query(ge=0, le=2**53)],
    signature: Signed,
) -> Response:
    """Takes no key: the link is signed, for one archive of one template."""
    link = UploadLink(template_id, files_hash, project, key, expires)
    use = context(request).uploads
    use.check(link, signature)
    trail.act_for(request, project, key)
    try:
        await use.receive(link, _announced(request), request.stream())
    except ClientDisconnect:
        raise BadRequest("cannot take this upload: it was broken off") from None
    return Response(status_code=204)


def _announced(request: Request) -> int:
    length = request.headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        raise HTTPException(411, "cannot take an upload of unknown length; send Content-Length")
    if int(length) > limits.UPLOAD_MAX_BYTES:
        raise HTTPException(413, f"cannot take an upload of more than {limits.UPLOAD_MAX_BYTES} bytes; send less")
    return int(length)


async def start(request: Request, who: Who, template_id: str, build_id: str, body: BuildStart) -> Response:
    await context(request).builds.start(who.project, template_id, build_id, body.recipe())
    return Response(status_code=202)


async def cancel(request: Request, who: Who, template_id: str, build_id: str) -> Response:
    """Warren's own."""
    await context(request).builds.cancel(who.project, template_id, build_id)
    return Response(status_code=204)


async def status(
    request: Request,
    who: Who,
    template_id: str,
    build_id: str,
    *,
    logsOffset: Offset = 0,
    limit: Limit = limits.PAGE_MAX,
    level: LogLevel | None = None,
) -> BuildOut:
    """`logsOffset` counts the lines that the client has."""
    query = LineQuery(offset=logsOffset, limit=limit, level=level)
    build, lines = await context(request).builds.status(who.project, template_id, build_id, query)
    return encoding.build_out(build, lines)


async def logs(
    request: Request,
    who: Who,
    template_id: str,
    build_id: str,
    *,
    cursor: UnixMillis = None,
    limit: Limit = limits.PAGE_MAX,
    direction: Literal["forward", "backward"] = "forward",
    level: LogLevel | None = None,
) -> BuildLogs:
    """`cursor` is in unix milliseconds; reading goes on from there in the given direction."""
    start = None if cursor is None else at_unix(cursor / 1000)
    query = LineQuery(start=start, limit=limit, ascending=direction == "forward", level=level)
    _, lines = await context(request).builds.status(who.project, template_id, build_id, query)
    return BuildLogs(logs=[encoding.line_out(line) for line in lines])
