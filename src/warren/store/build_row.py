"""One build as a row, and back."""

import json
from typing import Any

from sqlalchemy import Row

from warren.model.build import Build, BuildStatus, Built
from warren.model.sandbox import Resources


def to_row(build: Build) -> dict[str, object]:
    return {
        "template_id": build.template_id,
        "id": build.id,
        "server_id": build.server_id,
        "status": build.status.value,
        "cpu_count": build.resources.cpu_count,
        "memory_mb": build.resources.memory_mb,
        "disk_mb": build.resources.disk_mb,
        "pids": build.resources.pids,
        "created_at": build.created_at,
        "updated_at": build.updated_at,
        "finished_at": build.finished_at,
        "tags": json.dumps(build.tags),
        "runtime": build.runtime,
        "reason": build.reason,
        "reason_step": build.reason_step,
        **({} if build.built is None else built_columns(build.built)),
    }


def built_columns(built: Built) -> dict[str, object]:
    return {
        "digest": built.digest,
        "default_user": built.default_user,
        "default_workdir": built.default_workdir,
        "envs": json.dumps(dict(built.envs)),
        "start_command": built.start_command,
        "ready_command": built.ready_command,
        "checkpoint_id": built.checkpoint_id,
    }


def from_row(row: Row[Any]) -> Build:
    return Build(
        id=row.id,
        template_id=row.template_id,
        server_id=row.server_id,
        status=BuildStatus(row.status),
        resources=Resources(row.cpu_count, row.memory_mb, row.disk_mb, row.pids),
        created_at=row.created_at,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
        tags=tuple(json.loads(row.tags)),
        built=None if row.digest is None else _built(row),
        runtime=row.runtime,
        reason=row.reason,
        reason_step=row.reason_step,
    )


def _built(row: Row[Any]) -> Built:
    return Built(
        digest=row.digest,
        default_user=row.default_user,
        default_workdir=row.default_workdir,
        envs=json.loads(row.envs),
        start_command=row.start_command,
        ready_command=row.ready_command,
        checkpoint_id=row.checkpoint_id,
    )
