"""Writes down every change that somebody asked for, and every refusal to tell who asks, before the answer goes out."""

from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from warren.api import error_mapping
from warren.api.trail import trail_of
from warren.contracts.audit import Audit
from warren.model.audit import Event, Kind, Outcome
from warren.model.errors import AuditUnavailable
from warren.telemetry.meters import Meters

READS = frozenset({"GET", "HEAD", "OPTIONS"})

KINDS: Mapping[tuple[str, str], Kind] = {
    ("POST", "/v2/sandboxes"): Kind.SANDBOX_CREATE,
    ("POST", "/sandboxes"): Kind.SANDBOX_CREATE,
    ("DELETE", "/sandboxes/{sandbox_id}"): Kind.SANDBOX_KILL,
    ("POST", "/v2/sandboxes/{sandbox_id}/connect"): Kind.SANDBOX_CONNECT,
    ("POST", "/sandboxes/{sandbox_id}/connect"): Kind.SANDBOX_CONNECT,
    ("POST", "/sandboxes/{sandbox_id}/resume"): Kind.SANDBOX_RESUME,
    ("POST", "/sandboxes/{sandbox_id}/timeout"): Kind.SANDBOX_TIMEOUT,
    ("POST", "/sandboxes/{sandbox_id}/refreshes"): Kind.SANDBOX_TIMEOUT,
    ("PUT", "/sandboxes/{sandbox_id}/network"): Kind.SANDBOX_NETWORK,
    ("POST", "/sandboxes/{sandbox_id}/pause"): Kind.SANDBOX_PAUSE,
    ("POST", "/sandboxes/{sandbox_id}/fork"): Kind.SANDBOX_FORK,
    ("POST", "/sandboxes/{sandbox_id}/snapshots"): Kind.SNAPSHOT_CREATE,
    ("POST", "/v3/templates"): Kind.TEMPLATE_CREATE,
    ("POST", "/v2/templates"): Kind.TEMPLATE_CREATE,
    ("POST", "/v2/templates/{template_id:path}/builds/{build_id}"): Kind.TEMPLATE_BUILD,
    ("DELETE", "/templates/{template_id:path}/builds/{build_id}"): Kind.TEMPLATE_BUILD,
    ("PUT", "/templates/{template_id:path}/files/{files_hash}"): Kind.TEMPLATE_UPLOAD,
    ("POST", "/machine/prune"): Kind.TEMPLATE_PRUNE,
    ("POST", "/templates/tags"): Kind.TEMPLATE_TAG,
    ("DELETE", "/templates/tags"): Kind.TEMPLATE_TAG,
    ("PUT", "/templates/{template_id:path}/settings/idle"): Kind.TEMPLATE_IDLE,
    ("DELETE", "/templates/{template_id:path}/settings/idle"): Kind.TEMPLATE_IDLE,
    ("PATCH", "/v2/templates/{template_id:path}"): Kind.TEMPLATE_PUBLISH,
    ("PATCH", "/templates/{template_id:path}"): Kind.TEMPLATE_PUBLISH,
    ("DELETE", "/templates/{template_id:path}"): Kind.TEMPLATE_DELETE,
    ("POST", "/volumes"): Kind.VOLUME_CREATE,
    ("DELETE", "/volumes/{volume_id}"): Kind.VOLUME_DELETE,
    ("POST", "/volumecontent/{volume_id}/dir"): Kind.VOLUME_CONTENT,
    ("PATCH", "/volumecontent/{volume_id}/path"): Kind.VOLUME_CONTENT,
    ("DELETE", "/volumecontent/{volume_id}/path"): Kind.VOLUME_CONTENT,
    ("PUT", "/volumecontent/{volume_id}/file"): Kind.VOLUME_CONTENT,
    ("POST", "/secrets"): Kind.SECRET_CREATE,
    ("POST", "/secrets/{secret_id}"): Kind.SECRET_UPDATE,
    ("DELETE", "/secrets/{secret_id}"): Kind.SECRET_DELETE,
    ("POST", "/api-keys"): Kind.KEY_CREATE,
    ("PATCH", "/api-keys/{key_id}"): Kind.KEY_RENAME,
    ("DELETE", "/api-keys/{key_id}"): Kind.KEY_REVOKE,
}
"""A test proves that every route that changes something is here; one that is not would be written as `api.other`."""


class AuditTrail:
    def __init__(self, app: ASGIApp, audit: Audit, meters: Meters) -> None:
        self._app, self._audit, self._meters = app, audit, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        changes = scope["method"] not in READS
        if changes and not _ends_sandbox(scope):
            try:
                self._audit.check()
            except AuditUnavailable as error:
                status = error_mapping.status_of(type(error))
                answer = error_mapping.reply(status, error.message, error.code, scope["path"])
                await answer(scope, receive, send)
                return

        async def written(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._write(scope, message["status"], changes=changes)
            await send(message)

        try:
            await self._app(scope, receive, written)
        except Exception:
            await self._write(scope, 500, changes=changes)
            raise

    async def _write(self, scope: Scope, status: int, *, changes: bool) -> None:
        trail = trail_of(scope)
        if trail.get("rule") == "unauthenticated":
            client = scope.get("client")
            details = {"address": client[0]} if client else {}
            self._audit.sample(Event(Kind.AUTH_REFUSED, Outcome.REFUSED, "unauthenticated", via="api", details=details))
        elif changes and scope.get("route") is not None:  # without a route there was nothing to change
            event = _event(scope, trail, status)
            if event.outcome is Outcome.REFUSED:
                self._refused(event)
            else:
                await self._audit.record(event)

    def _refused(self, event: Event) -> None:
        self._meters.refusals.labels(event.kind.value).inc()
        self._audit.sample(event)


def _ends_sandbox(scope: Scope) -> bool:
    """The one change that is never refused: it gives back what the disk may lack. It is written down when that can."""
    return scope["method"] == "DELETE" and scope["path"].startswith("/sandboxes/")


def _event(scope: Scope, trail: Mapping[str, str], status: int) -> Event:
    template = str(getattr(scope["route"], "path", ""))
    ids = ((name, value) for name, value in scope.get("path_params", {}).items() if name.endswith("_id"))
    named = next((f"{name.removesuffix('_id')}:{value}" for name, value in ids), "")
    outcome = Outcome.ALLOWED if status < 400 else Outcome.REFUSED if status < 500 else Outcome.FAILED
    return Event(
        kind=KINDS.get((scope["method"], template), Kind.API_OTHER),
        outcome=outcome,
        rule=trail.get("rule", "" if status < 400 else str(status)),
        subject=trail.get("subject", named),
        project=trail.get("project", ""),
        key=trail.get("key", ""),
        via="api",
    )
