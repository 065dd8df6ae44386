"""Model -> wire for templates and builds, and their page tokens."""

import re
from datetime import datetime
from typing import Any

from warren.api.encoding import page_position, page_token, stamp
from warren.api.schemas import ENVD_VERSION
from warren.model.project import Project
from warren.model.template import TemplateEntry

_TEMPLATE_ID = re.compile(r"[a-z0-9_-]{1,128}")


def template_out(entry: TemplateEntry, project: Project) -> dict[str, Any]:
    """`names` are with the namespace, `aliases` without."""
    build = entry.build
    return {
        "templateID": entry.id,
        "buildID": build.id,
        "cpuCount": build.resources.cpu_count,
        "memoryMB": build.resources.memory_mb,
        "diskSizeMB": build.resources.disk_mb,
        "public": entry.public,
        "aliases": list(entry.names),
        "names": names_out(entry, project),
        "createdAt": stamp(entry.created_at),
        "updatedAt": stamp(entry.updated_at),
        "createdBy": None,
        "lastSpawnedAt": None if entry.last_spawned_at is None else stamp(entry.last_spawned_at),
        "spawnCount": entry.spawn_count,
        "buildCount": entry.build_count,
        "envdVersion": ENVD_VERSION,
        "buildStatus": str(build.status),
        "isDefault": entry.project_id is None,
    }


def names_out(entry: TemplateEntry, project: Project) -> list[str]:
    """Built-in ones have no namespace."""
    namespace = "" if entry.project_id is None else f"{project.name.lower()}/"
    return [namespace + name for name in entry.names]


def template_token(entry: TemplateEntry) -> str:
    return page_token(entry.created_at, entry.id)


def parse_template_token(token: str) -> tuple[datetime, str]:
    """Raises InvalidPageToken for anything that `template_token` did not make."""
    return page_position(token, _TEMPLATE_ID)
