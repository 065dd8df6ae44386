"""Every route of the REST API on one screen: method, path, success status, who may call it, handler."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from warren.api import (
    builds,
    machine,
    observation,
    pools,
    projects,
    sandboxes,
    scrape,
    secrets,
    sleep,
    templates,
    volume_content,
    volumes,
)


class Access(enum.Enum):
    OPEN = "open"
    """No key: only what says nothing about anybody."""
    LOCAL = "local"
    """No key for a direct request from this machine itself, any key otherwise: counts over all projects."""
    SIGNED = "signed"
    """No key: the URL is signed for this one request."""
    KEY = "key"
    """Any key; the handler sees only what the key's project owns."""
    ROOT = "root"
    """The key of this machine's root alone: what touches all projects."""
    VOLUME = "volume"
    """The token of the volume in the path, and nothing else."""


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    status: int
    access: Access
    handler: Callable[..., Any]


_SANDBOX = "/sandboxes/{sandbox_id}"
_TEMPLATE = "/templates/{template_id:path}"
_BUILD = _TEMPLATE + "/builds/{build_id}"
_LADDER = _TEMPLATE + "/settings/idle"  # two parts more than an id: a name with its namespace could have one
_CONTENT = "/volumecontent/{volume_id}"
_K = Access.KEY

ROUTES: tuple[Route, ...] = (
    Route("GET", "/health", 204, Access.OPEN, projects.health),
    Route("GET", "/metrics", 200, Access.LOCAL, scrape.metrics),
    Route("GET", "/machine", 200, Access.LOCAL, machine.machine),
    Route("POST", "/machine/prune", 200, Access.ROOT, machine.prune),
    Route("GET", "/teams", 200, _K, projects.teams),
    Route("GET", "/api-keys", 200, _K, projects.list_keys),
    Route("POST", "/api-keys", 201, _K, projects.create_key),
    Route("PATCH", "/api-keys/{key_id}", 204, _K, projects.rename_key),
    Route("DELETE", "/api-keys/{key_id}", 204, _K, projects.revoke_key),
    Route("POST", "/v2/sandboxes", 201, _K, sandboxes.create),
    Route("POST", "/sandboxes", 201, _K, sandboxes.create_v1),
    Route("GET", "/v2/sandboxes", 200, _K, sandboxes.list_running),
    Route("GET", "/sandboxes", 200, _K, sandboxes.list_v1),
    Route("GET", "/sandboxes/metrics", 200, _K, observation.metrics_of_many),
    Route("GET", _SANDBOX, 200, _K, sandboxes.get),
    Route("DELETE", _SANDBOX, 204, _K, sandboxes.kill),
    Route("POST", "/v2" + _SANDBOX + "/connect", 200, _K, sleep.connect),
    Route("POST", _SANDBOX + "/connect", 200, _K, sleep.connect_v1),
    Route("POST", _SANDBOX + "/resume", 201, _K, sleep.resume_v1),
    Route("POST", _SANDBOX + "/timeout", 204, _K, sandboxes.set_timeout),
    Route("POST", _SANDBOX + "/refreshes", 204, _K, sandboxes.refresh),
    Route("PUT", _SANDBOX + "/network", 204, _K, sandboxes.set_network),
    Route("GET", _SANDBOX + "/metrics", 200, _K, observation.metrics),
    Route("GET", _SANDBOX + "/logs", 200, _K, observation.logs_v1),
    Route("GET", "/v2" + _SANDBOX + "/logs", 200, _K, observation.logs_v2),
    Route("POST", _SANDBOX + "/pause", 204, _K, sleep.pause),
    Route("POST", _SANDBOX + "/fork", 201, _K, sleep.fork),
    Route("POST", _SANDBOX + "/snapshots", 201, _K, sleep.snapshot),
    Route("POST", "/v3/templates", 202, _K, builds.create),
    Route("POST", "/v2/templates", 202, _K, builds.create_v2),
    Route("GET", "/templates", 200, _K, templates.list_v1),
    Route("GET", "/v2/templates", 200, _K, templates.list_),
    Route("GET", "/templates/aliases/{alias:path}", 200, _K, templates.alias),
    Route("POST", "/templates/tags", 201, _K, templates.assign_tags),
    Route("DELETE", "/templates/tags", 204, _K, templates.remove_tags),
    Route("GET", _TEMPLATE + "/tags", 200, _K, templates.tags),
    Route("GET", _TEMPLATE + "/files/{files_hash}", 201, _K, builds.upload_link),
    Route("PUT", _TEMPLATE + "/files/{files_hash}", 204, Access.SIGNED, builds.upload),
    Route("POST", "/v2" + _BUILD, 202, _K, builds.start),
    Route("DELETE", _BUILD, 204, _K, builds.cancel),
    Route("GET", _BUILD + "/status", 200, _K, builds.status),
    Route("GET", _BUILD + "/logs", 200, _K, builds.logs),
    Route("GET", _LADDER, 200, _K, templates.ladder),
    Route("PUT", _LADDER, 200, _K, templates.set_ladder),
    Route("DELETE", _LADDER, 200, _K, templates.unset_ladder),
    Route("GET", _TEMPLATE, 200, _K, templates.get),  # these last: a name may have a slash in it
    Route("PATCH", "/v2" + _TEMPLATE, 200, _K, templates.update),
    Route("PATCH", _TEMPLATE, 200, _K, templates.update_v1),
    Route("DELETE", _TEMPLATE, 204, _K, templates.delete),
    Route("GET", "/pools", 200, _K, pools.pools),
    Route("GET", "/snapshots", 200, _K, sleep.list_snapshots),
    Route("GET", "/volumes", 200, _K, volumes.list_volumes),
    Route("POST", "/volumes", 201, _K, volumes.create),
    Route("GET", "/volumes/{volume_id}", 200, _K, volumes.get),
    Route("DELETE", "/volumes/{volume_id}", 204, _K, volumes.delete),
    Route("GET", _CONTENT + "/dir", 200, Access.VOLUME, volume_content.list_dir),
    Route("POST", _CONTENT + "/dir", 201, Access.VOLUME, volume_content.make_dir),
    Route("GET", _CONTENT + "/path", 200, Access.VOLUME, volume_content.stat),
    Route("PATCH", _CONTENT + "/path", 200, Access.VOLUME, volume_content.change),
    Route("DELETE", _CONTENT + "/path", 204, Access.VOLUME, volume_content.delete),
    Route("GET", _CONTENT + "/file", 200, Access.VOLUME, volume_content.read),
    Route("PUT", _CONTENT + "/file", 201, Access.VOLUME, volume_content.write),
    Route("GET", "/secrets", 200, _K, secrets.list_secrets),
    Route("POST", "/secrets", 201, _K, secrets.create),
    Route("GET", "/secrets/{secret_id}", 200, _K, secrets.get),
    Route("POST", "/secrets/{secret_id}", 200, _K, secrets.update),
    Route("DELETE", "/secrets/{secret_id}", 204, _K, secrets.delete),
)
