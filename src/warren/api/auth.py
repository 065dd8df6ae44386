"""Who is asking: the API key in `X-API-KEY`, or as a bearer token where the CLI sends it so."""

import hmac
from dataclasses import dataclass

from fastapi import Request

from warren.api import trail
from warren.api.context import context
from warren.model.errors import Forbidden, Unauthenticated
from warren.model.project import ApiKey, Project


@dataclass(frozen=True, slots=True)
class Caller:
    """`secret` is the key as it was sent; only `/teams` gives it back, to the one who sent it."""

    key: ApiKey
    project: Project
    secret: str


async def caller(request: Request) -> Caller:
    secret = request.headers.get("x-api-key") or bearer(request)
    if not secret:
        raise Unauthenticated("authorization header is missing: send your API key in X-API-KEY")
    key, project = await context(request).keys.authenticate(secret)
    trail.act_for(request, project.id, key.id)
    return Caller(key, project, secret)


async def root(request: Request) -> Caller:
    """Whoever holds the key that lies in the state folder, which only this machine's root can read.

    Raises Unauthenticated, Forbidden.
    """
    who = await caller(request)
    try:
        known = context(request).root_key.read_text().strip()
    except OSError:
        known = ""
    if not known or not hmac.compare_digest(known.encode(), who.secret.encode()):
        raise Forbidden("cannot do this with this key: it takes the one of this machine's root (local-key)")
    return who


def bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
