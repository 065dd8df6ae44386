"""One sandbox as a row, and back."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from warren.model.pause import Lifecycle, Pause, PauseCause, PauseKind
from warren.model.policy import NetworkPolicy
from warren.model.sandbox import Desired, EndReason, Resources, Sandbox, State
from warren.model.volume import VolumeMount


def to_row(sandbox: Sandbox) -> dict[str, object]:
    return {
        "id": sandbox.id,
        "project_id": sandbox.project_id,
        "template_id": sandbox.template_id,
        "alias": sandbox.alias,
        "runtime": sandbox.runtime,
        "cpu_count": sandbox.resources.cpu_count,
        "memory_mb": sandbox.resources.memory_mb,
        "disk_mb": sandbox.resources.disk_mb,
        "pids": sandbox.resources.pids,
        "state": sandbox.state.value,
        "desired": sandbox.desired.value,
        "created_at": sandbox.created_at,
        "started_at": sandbox.started_at,
        "expires_at": sandbox.expires_at,
        "timeout_s": sandbox.timeout_s,
        "secured": sandbox.secured,
        "network": network_text(sandbox.network),
        "metadata": json.dumps(dict(sandbox.metadata), sort_keys=True),
        "end_reason": None if sandbox.end_reason is None else sandbox.end_reason.value,
        "ended_at": sandbox.ended_at,
        "server_id": sandbox.server_id,
        "root_template_id": sandbox.root_template_id,
        "digest": sandbox.digest,
        "default_user": sandbox.default_user,
        "default_workdir": sandbox.default_workdir,
        "template_envs": json.dumps(dict(sandbox.template_envs)),
        "volumes": mounts_text(sandbox.volumes),
        "auto_pause": sandbox.lifecycle.auto_pause,
        "auto_pause_memory": sandbox.lifecycle.auto_pause_memory,
        "auto_resume": sandbox.lifecycle.auto_resume,
        **pause_columns(sandbox.pause),
    }


def from_row(row: Row[Any]) -> Sandbox:
    return Sandbox(
        id=row.id,
        project_id=row.project_id,
        template_id=row.template_id,
        alias=row.alias,
        runtime=row.runtime,
        resources=Resources(row.cpu_count, row.memory_mb, row.disk_mb, row.pids),
        state=State(row.state),
        desired=Desired(row.desired),
        created_at=row.created_at,
        started_at=row.started_at,
        expires_at=row.expires_at,
        timeout_s=row.timeout_s,
        secured=row.secured,
        network=_network(row.network),
        metadata=json.loads(row.metadata),
        end_reason=None if row.end_reason is None else EndReason(row.end_reason),
        ended_at=row.ended_at,
        server_id=row.server_id,
        root_template_id=row.root_template_id,
        digest=row.digest,
        default_user=row.default_user,
        default_workdir=row.default_workdir,
        template_envs=json.loads(row.template_envs),
        volumes=parse_mounts(row.volumes),
        lifecycle=Lifecycle(row.auto_pause, row.auto_pause_memory, row.auto_resume),
        pause=_pause(row),
    )


def pause_columns(pause: Pause | None) -> dict[str, object]:
    return {
        "pause_kind": None if pause is None else pause.kind.value,
        "pause_checkpoint": None if pause is None else pause.checkpoint_id,
        "pause_by": None if pause is None else pause.by.value,
        "pause_at": None if pause is None else pause.at,
        "pause_bytes": 0 if pause is None else pause.bytes,
        "pause_guest_silent": pause is not None and pause.guest_silent,
    }


def _pause(row: Row[Any]) -> Pause | None:
    if row.pause_kind is None:
        return None
    return Pause(
        checkpoint_id=row.pause_checkpoint,
        kind=PauseKind(row.pause_kind),
        by=PauseCause(row.pause_by),
        at=row.pause_at,
        bytes=row.pause_bytes,
        guest_silent=row.pause_guest_silent,
    )


def network_text(network: NetworkPolicy) -> str:
    return json.dumps(
        {
            "allow_internet": network.allow_internet,
            "allow_out": network.allow_out,
            "deny_out": network.deny_out,
            "public_traffic": network.public_traffic,
            "mask_host": network.mask_host,
        }
    )


def mounts_text(mounts: Sequence[VolumeMount]) -> str:
    return json.dumps(
        [{"id": one.volume_id, "name": one.name, "path": one.path, "read_only": one.read_only} for one in mounts]
    )


def parse_mounts(text: str) -> tuple[VolumeMount, ...]:
    return tuple(VolumeMount(one["id"], one["name"], one["path"], one["read_only"]) for one in json.loads(text))


def label(key: str, value: str) -> str:
    """What a metadata entry is found by. JSON keeps ("a", "bc") and ("ab", "c") apart."""
    return hashlib.sha256(json.dumps([key, value]).encode()).hexdigest()


def _network(text: str) -> NetworkPolicy:
    stored = json.loads(text)
    return NetworkPolicy(
        allow_internet=stored["allow_internet"],
        allow_out=tuple(stored["allow_out"]),
        deny_out=tuple(stored["deny_out"]),
        public_traffic=stored["public_traffic"],
        mask_host=stored["mask_host"],
    )
