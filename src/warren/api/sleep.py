"""Handlers of pause, resume, fork and snapshots (wire contract 2.2)."""

from typing import Any

from fastapi import Request, Response

from warren.api import encoding, trail
from warren.api.context import context
from warren.api.error_mapping import status_of
from warren.api.sandboxes import Limit, Who
from warren.api.schemas import Connect, ConnectV1, Fork, Pause, SandboxOut, SnapshotOut, SnapshotRequest
from warren.contracts.store import SnapshotQuery
from warren.control.forking import ForkRequest
from warren.control.pausing import PauseRequest
from warren.control.snapshots import VersionName
from warren.model import limits
from warren.model.errors import WarrenError


async def pause(request: Request, who: Who, sandbox_id: str, body: Pause | None = None) -> Response:
    asked = body or Pause()
    wanted = PauseRequest(memory=asked.memory, durable=asked.durable, strict=asked.requireHealthyGuest)
    await context(request).sandboxes.pause(who.project, sandbox_id, wanted)
    return Response(status_code=204)


async def connect(
    request: Request, response: Response, who: Who, sandbox_id: str, body: Connect | None = None
) -> SandboxOut:
    """200 for a sandbox that ran, 201 for one that slept."""
    use, asked = context(request), body or Connect()
    timeout_s = limits.DEFAULT_TIMEOUT_V2_S if asked.timeout is None else asked.timeout
    memory = asked.memory is not False
    admission, slept = await use.sandboxes.connect(who.project, sandbox_id, timeout_s, memory=memory)
    response.status_code = 201 if slept else 200
    return encoding.sandbox_out(admission, use.domain)


async def connect_v1(request: Request, response: Response, who: Who, sandbox_id: str, body: ConnectV1) -> SandboxOut:
    return await connect(request, response, who, sandbox_id, body)


async def resume_v1(request: Request, who: Who, sandbox_id: str, body: Connect | None = None) -> SandboxOut:
    use, asked = context(request), body or Connect()
    timeout_s = limits.DEFAULT_TIMEOUT_V1_S if asked.timeout is None else asked.timeout
    memory = asked.memory is not False
    admission = await use.sandboxes.resume(who.project, sandbox_id, timeout_s, memory=memory)
    return encoding.sandbox_out(admission, use.domain)


async def fork(request: Request, who: Who, sandbox_id: str, body: Fork | None = None) -> list[dict[str, Any]]:
    """One item for each copy that was asked for: the copy, or the error that it met."""
    use, asked = context(request), body or Fork()
    envs = None if asked.inheritEnvVars and not asked.envVars else asked.envVars
    wanted = ForkRequest(count=asked.count, timeout_s=asked.timeout, envs=envs)
    copies = await use.sandboxes.fork(who.project, sandbox_id, wanted)
    return [
        {"error": _error_out(copy)}
        if isinstance(copy, WarrenError)
        else {"sandbox": encoding.sandbox_out(copy, use.domain)}
        for copy in copies
    ]


def _error_out(error: WarrenError) -> dict[str, Any]:
    return {"code": status_of(type(error)), "message": error.message, "error_code": error.code}


async def snapshot(request: Request, who: Who, sandbox_id: str, body: SnapshotRequest | None = None) -> SnapshotOut:
    asked = body or SnapshotRequest()
    taken = await context(request).sandboxes.snapshot(who.project, sandbox_id, asked.name, memory=asked.memory)
    trail.about(request, "snapshot", taken.id)
    return encoding.snapshot_out(taken, who.project)


async def list_snapshots(
    request: Request,
    response: Response,
    who: Who,
    *,
    sandboxID: str | None = None,
    name: str | None = None,
    nextToken: str | None = None,
    limit: Limit = limits.PAGE_MAX,
) -> list[SnapshotOut]:
    version = None if name is None else VersionName.parse(name, who.project)
    if name is not None and version is None:
        return []
    rows = await context(request).snapshots.list(
        SnapshotQuery(
            project_id=who.project.id,
            source_id=sandboxID.partition("-")[0] if sandboxID else None,
            name=None if version is None else version.name,
            tag=None if version is None else version.tag,
            limit=limit + 1,
            after=encoding.parse_snapshot_token(nextToken) if nextToken else None,
        )
    )
    if len(rows) > limit:
        response.headers["x-next-token"] = encoding.snapshot_token(rows[limit - 1])
    return [encoding.snapshot_out(row, who.project) for row in rows[:limit]]
