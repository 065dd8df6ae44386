"""Handlers of templates (wire contract 2.3)."""

from typing import Any

from fastapi import Request, Response

from warren.api import template_encoding as encoding
from warren.api import trail
from warren.api.context import context
from warren.api.sandboxes import Limit, Who
from warren.api.template_schemas import (
    AliasOut,
    AssignedTags,
    LadderIn,
    LadderOut,
    NamesOut,
    TagOut,
    TagsAssignment,
    TagsRemoval,
    TemplateUpdate,
)
from warren.contracts.template_store import TemplateQuery
from warren.model import limits
from warren.model.errors import BadRequest, TemplateNotFound
from warren.model.idle import Ladder


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


async def get(
    request: Request,
    response: Response,
    who: Who,
    template_id: str,
    *,
    nextToken: str | None = None,
    limit: Limit = limits.PAGE_MAX,
) -> dict[str, Any]:
    """A template with a page of its builds."""
    use = context(request).templates
    after = encoding.parse_build_token(nextToken) if nextToken else None
    entry = await use.visible(who.project, template_id)
    rows = await use.builds(entry, limit + 1, after)
    if len(rows) > limit:
        response.headers["x-next-token"] = encoding.build_token(rows[limit - 1])
    builds = [encoding.listed_build_out(row) for row in rows[:limit]]
    return {**encoding.template_out(entry, who.project), "builds": builds}


async def alias(request: Request, who: Who, alias: str) -> AliasOut:
    """403 for a public one of another project says that it exists; a private one of another is not there."""
    found = await context(request).templates.visible(who.project, alias)
    return AliasOut(templateID=found.id, public=found.public)


async def update(request: Request, who: Who, template_id: str, body: TemplateUpdate) -> NamesOut:
    entry = await context(request).templates.set_public(who.project, template_id, public=body.public)
    trail.about(request, "template", entry.id)
    return NamesOut(names=encoding.names_out(entry, who.project))


async def update_v1(request: Request, who: Who, template_id: str, body: TemplateUpdate) -> dict[str, Any]:
    await update(request, who, template_id, body)
    return {}


async def delete(request: Request, who: Who, template_id: str) -> Response:
    """Snapshots are deleted by this route too. One that has a tag is a snapshot: tags of templates have their own."""
    use = context(request)
    if ":" not in template_id:
        try:
            trail.about(request, "template", await use.builds.delete_template(who.project, template_id))
            return Response(status_code=204)
        except TemplateNotFound:
            pass
    if not await use.snapshots.delete(who.project, template_id):
        raise TemplateNotFound(f"template '{template_id}' not found")
    return Response(status_code=204)


async def tags(request: Request, who: Who, template_id: str) -> list[TagOut]:
    rows = await context(request).templates.tags(who.project, template_id)
    return [TagOut(tag=row.tag, buildID=row.build_id, createdAt=row.created_at) for row in rows]


async def assign_tags(request: Request, who: Who, body: TagsAssignment) -> AssignedTags:
    entry, assigned = await context(request).templates.assign_tags(who.project, body.target, body.tags)
    trail.about(request, "template", entry.id)
    return AssignedTags(tags=[one.tag for one in assigned], buildID=assigned[0].build_id)


async def remove_tags(request: Request, who: Who, body: TagsRemoval) -> Response:
    entry = await context(request).templates.remove_tags(who.project, body.name, body.tags)
    trail.about(request, "template", entry.id)
    return Response(status_code=204)


def _check_team(project_id: str, team: str | None) -> None:
    if team not in (None, project_id):
        raise BadRequest("Team ID param mismatch with the API key")


async def ladder(request: Request, who: Who, template_id: str) -> LadderOut:
    use = context(request).templates
    entry = await use.visible(who.project, template_id)
    return encoding.ladder_out(entry, use.ladder(entry))


async def set_ladder(request: Request, who: Who, template_id: str, body: LadderIn) -> LadderOut:
    return await _changed_ladder(request, who, template_id, body.ladder())


async def unset_ladder(request: Request, who: Who, template_id: str) -> LadderOut:
    return await _changed_ladder(request, who, template_id, None)


async def _changed_ladder(request: Request, who: Who, template_id: str, wanted: Ladder | None) -> LadderOut:
    use = context(request).templates
    entry = await use.set_ladder(who.project, template_id, wanted)
    trail.about(request, "template", entry.id)
    return encoding.ladder_out(entry, use.ladder(entry))
