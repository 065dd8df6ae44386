"""Handlers of templates (wire contract 2.3)."""

from typing import Any

from fastapi import Request, Response

from warren.api import template_encoding as encoding
from warren.api.context import context
from warren.api.sandboxes import Limit, Who
from warren.contracts.template_store import TemplateQuery
from warren.model import limits
from warren.model.errors import BadRequest


async def list_v1(request: Request, who: Who, teamID: str | None = None) -> list[dict[str, Any]]:
    """The newest of them: the older route has no pages."""
    _check_team(who.project.id, teamID)
    query = TemplateQuery(who.project.id, limit=limits.PROJECT_MAX_TEMPLATES)
    return [encoding.template_out(one, who.project) for one in await context(request).templates.list(query)]


async def list_(
    request: Request,
    response: Response,
    who: Who,
    *,
    teamID: str | None = None,
    nextToken: str | None = None,
    limit: Limit = limits.PAGE_MAX,
) -> list[dict[str, Any]]:
    _check_team(who.project.id, teamID)
    after = encoding.parse_template_token(nextToken) if nextToken else None
    rows = await context(request).templates.list(TemplateQuery(who.project.id, limit + 1, after))
    if len(rows) > limit:
        response.headers["x-next-token"] = encoding.template_token(rows[limit - 1])
    return [encoding.template_out(row, who.project) for row in rows[:limit]]


async def alias(request: Request, who: Who, alias: str) -> dict[str, Any]:
    found = await context(request).templates.entry(who.project, alias)
    return {"templateID": found.id, "public": found.public}


def _check_team(project_id: str, team: str | None) -> None:
    if team not in (None, project_id):
        raise BadRequest("Team ID param mismatch with the API key")
