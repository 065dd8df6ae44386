"""Handlers of metrics and logs (wire contract 2.2)."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import Query, Request

from warren.api import encoding
from warren.api.context import context
from warren.api.sandboxes import Who
from warren.api.schemas import MetricOut
from warren.contracts.store import LogQuery
from warren.model import limits
from warren.model.observation import Level

UnixSeconds = Annotated[int | None, Query(ge=0, le=2**33)]
UnixMillis = Annotated[int | None, Query(ge=0, le=2**43)]
LogLimit = Annotated[int, Query(ge=0, le=limits.LOG_PAGE_MAX)]


async def metrics(
    request: Request, who: Who, sandbox_id: str, start: UnixSeconds = None, end: UnixSeconds = None
) -> list[MetricOut]:
    """`end` is inclusive: the whole second counts."""
    until = None if end is None else at_unix(end) + timedelta(seconds=1, microseconds=-1)
    found = await context(request).observations.metrics(
        who.project, sandbox_id, None if start is None else at_unix(start), until
    )
    return [encoding.metric_out(metric) for metric in found]


async def metrics_of_many(
    request: Request, who: Who, sandbox_ids: Annotated[list[str], Query()]
) -> dict[str, dict[str, MetricOut]]:
    asked = [one for part in sandbox_ids for one in part.split(",") if one]
    found = await context(request).observations.latest(who.project, asked)
    return {"sandboxes": {sandbox_id: encoding.metric_out(metric) for sandbox_id, metric in found.items()}}


async def logs_v1(
    request: Request, who: Who, sandbox_id: str, start: UnixMillis = None, limit: LogLimit = limits.LOG_PAGE_DEFAULT
) -> dict[str, Any]:
    query = LogQuery(start=None if start is None else at_unix(start / 1000), limit=limit)
    entries = await context(request).observations.logs(who.project, sandbox_id, query)
    return {
        "logs": [encoding.log_line_out(entry) for entry in entries],
        "logEntries": [encoding.log_entry_out(entry) for entry in entries],
    }


async def logs_v2(
    request: Request,
    who: Who,
    sandbox_id: str,
    *,
    cursor: UnixMillis = None,
    limit: LogLimit = limits.LOG_PAGE_DEFAULT,
    direction: Literal["forward", "backward"] = "forward",
    level: Level | None = None,
    search: Annotated[str | None, Query(max_length=256)] = None,
) -> dict[str, Any]:
    """`cursor` is in unix milliseconds; reading goes on from there in the given direction."""
    query = LogQuery(
        start=None if cursor is None else at_unix(cursor / 1000),
        limit=limit,
        ascending=direction == "forward",
        level=level,
        search=search,
    )
    entries = await context(request).observations.logs(who.project, sandbox_id, query)
    return {"logs": [encoding.log_entry_out(entry) for entry in entries]}


def at_unix(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
