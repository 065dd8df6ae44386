"""Handlers of the sandbox routes (wire contract 2.2)."""

import json
from datetime import datetime
from typing import Annotated, Literal

from fastapi import Depends, Header, Query, Request, Response
from pydantic import StringConstraints

from warren.api import encoding, trail
from warren.api.auth import Caller, caller
from warren.api.context import context
from warren.api.schemas import (
    ListedSandbox,
    Network,
    NetworkUpdate,
    NewSandbox,
    Refresh,
    SandboxDetail,
    SandboxOut,
    Timeout,
)
from warren.contracts.engine import Restore
from warren.contracts.store import SandboxQuery
from warren.control.sandbox_start import Origin, StartRequest
from warren.model import limits
from warren.model.errors import BadRequest, NotSupported, TemplateNotFound
from warren.model.project import Project
from warren.model.sandbox import State
from warren.model.snapshot import SnapshotKind
from warren.model.template import Template, template_of
from warren.model.volume import VolumeMount

Who = Annotated[Caller, Depends(caller)]
IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key"),
    StringConstraints(min_length=1, max_length=limits.IDEMPOTENCY_KEY_MAX, pattern=r"^[a-z0-9-]+$"),
]
Limit = Annotated[int, Query(ge=1, le=limits.PAGE_MAX)]
RuntimeHeader = Annotated[str | None, Header(alias="X-Warren-Runtime")]


async def create(
    request: Request, who: Who, body: NewSandbox, key: IdempotencyKey = None, runtime: RuntimeHeader = None
) -> SandboxOut:
    body = body.with_defaults(timeout=limits.DEFAULT_TIMEOUT_V2_S, runtime=runtime, secure=True)
    return await _create(request, who.project, body, key)


async def create_v1(
    request: Request, who: Who, body: NewSandbox, key: IdempotencyKey = None, runtime: RuntimeHeader = None
) -> SandboxOut:
    """Older clients: a shorter default life, and the guest is open unless `secure` is asked for."""
    secure = body.secure is True
    body = body.with_defaults(timeout=limits.DEFAULT_TIMEOUT_V1_S, runtime=runtime, secure=secure)
    return await _create(request, who.project, body, key)


async def _create(request: Request, project: Project, body: NewSandbox, key: str | None) -> SandboxOut:
    use = context(request)
    wanted = await _start_request(request, project, body)
    if key is None:
        admission = await use.sandboxes.create(project, wanted)
    else:
        canonical = json.dumps(body.model_dump(mode="json"), sort_keys=True).encode()
        admission = await use.sandboxes.create_once(project, wanted, key, canonical)
    trail.about(request, "sandbox", admission.sandbox.id)
    return encoding.sandbox_out(admission, use.domain)


async def _start_request(request: Request, project: Project, body: NewSandbox) -> StartRequest:
    _refuse_what_is_not_there(body)
    secured, network = body.secure is True, body.network or Network()
    public = network.allowPublicTraffic is not False
    if not public and not secured:
        raise BadRequest("cannot close public traffic of an open sandbox; set secure to true")
    template, origin = await _template(request, project, body.templateID)
    return StartRequest(
        template=template,
        origin=origin,
        timeout_s=body.timeout or 0,
        runtime=body.runtime,
        cpu_count=body.cpuCount,
        memory_mb=body.memoryMB,
        disk_mb=body.diskMB,
        secured=secured,
        network=network.policy(
            allow_internet=body.allow_internet_access is not False,
            public_traffic=public,
            mask_host=network.maskRequestHost,
        ),
        metadata=body.metadata,
        envs=body.envVars,
        lifecycle=body.lifecycle,
        volumes=await _volumes(request, project, body, origin),
    )


async def _template(request: Request, project: Project, reference: str) -> tuple[Template, Origin | None]:
    """A template, or a snapshot as one. Raises BadRequest, TemplateNotFound, ServerAway."""
    use = context(request)
    try:
        return await use.templates.startable(project, reference), None
    except TemplateNotFound:
        snapshot = await use.snapshots.find(project, reference)
        if snapshot is None:
            raise
        template = await use.templates.with_services(template_of(snapshot))
        return template, Origin(Restore(snapshot.checkpoint_id, snapshot.kind), snapshot.source_id, snapshot.volumes)


async def _template_id(request: Request, project: Project, reference: str) -> str:
    """What sandboxes say that they were started from. Raises BadRequest, TemplateNotFound."""
    use = context(request)
    try:
        return (await use.templates.entry(project, reference)).id
    except TemplateNotFound:
        snapshot = await use.snapshots.find(project, reference)
        if snapshot is None:
            raise
        return snapshot.id


async def _volumes(
    request: Request, project: Project, body: NewSandbox, origin: Origin | None
) -> tuple[VolumeMount, ...]:
    """What is asked for; without, what the snapshot's sandbox had. Raises BadRequest, ServerAway."""
    use = context(request)
    before = () if origin is None else tuple((one.name, one.path, one.read_only) for one in origin.volumes)
    wanted = tuple(one.wanted for one in body.volumeMounts) or before
    if origin is not None and origin.restore.kind is SnapshotKind.MEMORY and set(wanted) != set(before):
        raise BadRequest("cannot change the volumes of a copy with its memory: leave volumeMounts out")
    return await use.volumes.mounts(project, wanted)


def _refuse_what_is_not_there(body: NewSandbox) -> None:
    """What this server cannot do is refused by name, never silently dropped."""
    if body.iam and body.iam.get("tokens"):
        raise NotSupported("cannot issue identity tokens yet: create the sandbox without iam")


async def list_running(
    request: Request,
    response: Response,
    who: Who,
    *,
    metadata: str = "",
    state: str = "running,paused",
    order: Literal["asc", "desc"] = "desc",
    startedAfter: datetime | None = None,
    template: str | None = None,
    nextToken: str | None = None,
    limit: Limit = limits.PAGE_MAX,
) -> list[ListedSandbox]:
    use = context(request)
    states = {part for part in state.split(",") if part}
    if not states <= {"running", "paused"}:
        raise BadRequest(f"cannot filter by state {state!r}; use running, paused or both with a comma")
    response.headers["X-Total-Running"] = str(await use.sandboxes.count_running(who.project))
    try:
        wanted = None if template is None else frozenset({await _template_id(request, who.project, template)})
    except TemplateNotFound:
        return []
    rows = await use.sandboxes.list(
        SandboxQuery(
            project_id=who.project.id,
            states=_observed(states),
            metadata=encoding.parse_metadata_filter(metadata),
            template_ids=wanted,
            started_after=None if startedAfter is None else encoding.in_utc(startedAfter),
            ascending=order == "asc",
            limit=limit + 1,
            after=encoding.parse_sandbox_token(nextToken) if nextToken else None,
        )
    )
    if len(rows) > limit:
        response.headers["x-next-token"] = encoding.sandbox_token(rows[limit - 1])
    return [encoding.listed(row) for row in rows[:limit]]


async def list_v1(request: Request, who: Who, metadata: str = "") -> list[ListedSandbox]:
    """Running ones, newest first; the older route has no pages."""
    query = SandboxQuery(
        project_id=who.project.id,
        metadata=encoding.parse_metadata_filter(metadata),
        limit=who.project.limits.sandboxes,
    )
    return [encoding.listed(row) for row in await context(request).sandboxes.list(query)]


async def get(request: Request, who: Who, sandbox_id: str) -> SandboxDetail:
    use = context(request)
    return encoding.detail(await use.sandboxes.get(who.project, sandbox_id), use.domain)


async def kill(request: Request, who: Who, sandbox_id: str) -> Response:
    await context(request).sandboxes.kill(who.project, sandbox_id)
    return Response(status_code=204)


async def set_timeout(request: Request, who: Who, sandbox_id: str, body: Timeout) -> Response:
    await context(request).sandboxes.set_timeout(who.project, sandbox_id, body.timeout)
    return Response(status_code=204)


async def refresh(request: Request, who: Who, sandbox_id: str, body: Refresh | None = None) -> Response:
    duration = limits.REFRESH_DEFAULT_S if body is None or body.duration is None else body.duration
    await context(request).sandboxes.refresh(who.project, sandbox_id, max(duration, limits.REFRESH_DEFAULT_S))
    return Response(status_code=204)


async def set_network(request: Request, who: Who, sandbox_id: str, body: NetworkUpdate) -> Response:
    await context(request).sandboxes.set_network(who.project, sandbox_id, body.as_policy())
    return Response(status_code=204)


def _observed(states: set[str]) -> frozenset[State]:
    """What the wire calls running and paused: all that is on its way into sleep or out of it is paused."""
    return frozenset(
        state
        for state in State
        if (state is State.RUNNING and "running" in states) or (state.is_asleep and "paused" in states)
    )
