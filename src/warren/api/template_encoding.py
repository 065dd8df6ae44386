"""Model -> wire for templates and builds, and their page tokens."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from warren.api.encoding import page_position, page_token, stamp
from warren.api.schemas import ENVD_VERSION
from warren.api.template_schemas import BuildLineOut, BuildOut, LadderOut, ReasonOut
from warren.model.build import Build, BuildLine
from warren.model.idle import Ladder
from warren.model.project import Project
from warren.model.template import TemplateEntry

_TEMPLATE_ID = re.compile(r"[a-z0-9_-]{1,128}")
_BUILD_ID = re.compile(r"[0-9a-f-]{36}")


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


def ladder_out(entry: TemplateEntry, holds: Ladder) -> LadderOut:
    return LadderOut(
        freezeAfter=holds.freeze_s,
        reclaimAfter=holds.reclaim_s,
        diskAfter=holds.disk_s,
        setBy="server" if entry.ladder is None else "template",
    )


def template_token(entry: TemplateEntry) -> str:
    return page_token(entry.created_at, entry.id)


def parse_template_token(token: str) -> tuple[datetime, str]:
    """Raises InvalidPageToken for anything that `template_token` did not make."""
    return page_position(token, _TEMPLATE_ID)


def build_token(build: Build) -> str:
    return page_token(build.created_at, build.id)


def parse_build_token(token: str) -> tuple[datetime, str]:
    """Raises InvalidPageToken for anything that `build_token` did not make."""
    return page_position(token, _BUILD_ID)


def listed_build_out(build: Build) -> dict[str, Any]:
    finished = {} if build.finished_at is None else {"finishedAt": stamp(build.finished_at)}
    return {
        "buildID": build.id,
        "status": str(build.status),
        "createdAt": stamp(build.created_at),
        "updatedAt": stamp(build.updated_at),
        "cpuCount": build.resources.cpu_count,
        "memoryMB": build.resources.memory_mb,
        "diskSizeMB": build.resources.disk_mb,
        "envdVersion": ENVD_VERSION,
        **finished,
    }


def build_out(build: Build, lines: Sequence[BuildLine]) -> BuildOut:
    return BuildOut(
        templateID=build.template_id,
        buildID=build.id,
        status=build.status.value,
        logEntries=[line_out(line) for line in lines],
        reason=None if build.reason is None else ReasonOut(message=build.reason, step=build.reason_step),
    )


def line_out(line: BuildLine) -> BuildLineOut:
    return BuildLineOut(timestamp=line.at, message=line.message, level=line.level, step=line.step)
