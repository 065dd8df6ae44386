"""Handlers of the secret routes (wire contract 2.5). No answer holds a value."""

from fastapi import Request, Response

from warren.api import encoding, trail
from warren.api.context import context
from warren.api.sandboxes import Limit, Who
from warren.api.schemas import NewSecret, SecretOut, SecretUpdate
from warren.contracts.store import SecretQuery
from warren.model import limits


async def create(request: Request, response: Response, who: Who, body: NewSecret) -> SecretOut:
    _keep_out_of_caches(response)
    made = await context(request).secrets.create(who.project, body.name, body.value, body.metadata)
    trail.about(request, "secret", made.id)
    return encoding.secret_out(made)


async def update(request: Request, response: Response, who: Who, secret_id: str, body: SecretUpdate) -> SecretOut:
    _keep_out_of_caches(response)
    newer = await context(request).secrets.update(who.project, secret_id, body.value, body.metadata)
    trail.about(request, "secret", newer.id)
    return encoding.secret_out(newer)


async def get(request: Request, response: Response, who: Who, secret_id: str) -> SecretOut:
    _keep_out_of_caches(response)
    return encoding.secret_out(await context(request).secrets.get(who.project, secret_id))


async def list_secrets(
    request: Request, response: Response, who: Who, *, nextToken: str | None = None, limit: Limit = limits.PAGE_MAX
) -> list[SecretOut]:
    _keep_out_of_caches(response)
    after = encoding.parse_secret_token(nextToken) if nextToken else None
    rows = await context(request).secrets.list(SecretQuery(who.project.id, limit + 1, after))
    if len(rows) > limit:
        response.headers["x-next-token"] = encoding.secret_token(rows[limit - 1])
    return [encoding.secret_out(row) for row in rows[:limit]]


async def delete(request: Request, who: Who, secret_id: str) -> Response:
    await context(request).secrets.delete(who.project, secret_id)
    return Response(status_code=204)


def _keep_out_of_caches(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"
