"""A request to a sandbox without a route: it may sleep, and be one that traffic wakes. Tokens are checked before."""

import hmac
import time

from warren.contracts.engine import GUEST_PORT
from warren.contracts.routing import Route, Sleepers
from warren.gateway import pages
from warren.gateway.admission import Asked, ToSandbox, admit_to
from warren.gateway.pages import Refusal
from warren.gateway.resolve import SandboxTarget
from warren.gateway.signed_urls import find_signer, has_expired, is_signed
from warren.model.errors import Conflict, Forbidden, LimitReached, NotFound, WarrenError

_ACCESS_HEADER = "X-Access-Token"


async def wake(asked: Asked, target: SandboxTarget, sleepers: Sleepers) -> ToSandbox | Refusal | None:
    """The sandbox, awake, or the reason why it stays asleep; None when it does not sleep here."""
    asleep = await sleepers.asleep(target.sandbox_id)
    if asleep is None:
        return None
    admitted = admit_to(asked, asleep, target.port)
    if isinstance(admitted, Refusal):
        return admitted
    if target.port == GUEST_PORT and not _may_call_guest(asked, asleep):
        return pages.stays_asleep(target.sandbox_id, 403, "the sandbox is paused, and only its access token wakes it")
    try:
        route = await sleepers.wake(target.sandbox_id)
    except NotFound:
        return pages.not_found(target.sandbox_id)
    except WarrenError as error:
        return pages.stays_asleep(target.sandbox_id, _status(error), error.message)
    return admit_to(asked, route, target.port)


def _may_call_guest(asked: Asked, asleep: Route) -> bool:
    """The guest would ask for the same, once it is awake."""
    if asleep.access_token is None:
        return True
    given = asked.headers.get(_ACCESS_HEADER, "").encode("utf-8", "surrogateescape")
    if hmac.compare_digest(given, asleep.access_token.encode()):
        return True
    if not is_signed(asked.path) or has_expired(asked.path, time.time()):
        return False
    return find_signer(asked.method, asked.path, [asleep]) is not None


def _status(error: WarrenError) -> int:
    match error:
        case Forbidden():
            return 403
        case Conflict():
            return 409
        case LimitReached():
            return 429
        case _:
            return 502
