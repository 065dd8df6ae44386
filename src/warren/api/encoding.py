"""Model -> wire, and the small encodings of the wire: page tokens and the metadata filter."""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from warren.api.schemas import (
    Lifecycle,
    ListedSandbox,
    MetricOut,
    NetworkOut,
    SandboxDetail,
    SandboxOut,
    SecretOut,
    SnapshotOut,
    VolumeEntryStat,
    VolumeMount,
    VolumeOut,
)
from warren.control.sandboxes import Admission
from warren.model.errors import BadRequest, InvalidPageToken
from warren.model.observation import LogEntry, Metric
from warren.model.pause import PauseKind
from warren.model.project import API_KEY_PREFIX, ApiKey, Project
from warren.model.sandbox import SANDBOX_ID, Sandbox
from warren.model.secret import SECRET_ID, Secret
from warren.model.snapshot import SNAPSHOT_ID, Snapshot, SnapshotKind, SnapshotUsage
from warren.model.volume import Volume, VolumeEntry

_UNQUOTE_ROUNDS = 2
"""Clients encode metadata values once or twice before the query is encoded once more (wire contract 2.2)."""


def sandbox_out(admission: Admission, domain: str) -> SandboxOut:
    sandbox = admission.sandbox
    return SandboxOut(
        templateID=sandbox.template_id,
        sandboxID=sandbox.id,
        alias=sandbox.alias,
        envdAccessToken=admission.access_token,
        trafficAccessToken=admission.traffic_token,
        domain=domain,
    )


def listed(sandbox: Sandbox) -> ListedSandbox:
    return ListedSandbox(**_common(sandbox))


def detail(admission: Admission, domain: str) -> SandboxDetail:
    sandbox, network, pause = admission.sandbox, admission.sandbox.network, admission.sandbox.pause
    return SandboxDetail(
        **_common(sandbox),
        envdAccessToken=admission.access_token,
        lifecycle=Lifecycle(
            autoResume=sandbox.lifecycle.auto_resume, onTimeout="pause" if sandbox.lifecycle.auto_pause else "kill"
        ),
        pauseMode=None if pause is None else "filesystem" if pause.kind is PauseKind.FILESYSTEM else "full",
        pausedIn=None if pause is None else "memory" if pause.kind is PauseKind.FROZEN else "disk",
        allowInternetAccess=network.allow_internet,
        domain=domain,
        network=NetworkOut(
            allowPublicTraffic=network.public_traffic,
            allowOut=list(network.allow_out),
            denyOut=list(network.deny_out),
            maskRequestHost=network.mask_host,
        ),
        health=admission.health,
    )


def _common(sandbox: Sandbox) -> dict[str, Any]:
    return {
        "templateID": sandbox.template_id,
        "sandboxID": sandbox.id,
        "alias": sandbox.alias,
        "startedAt": sandbox.started_at,
        "endAt": sandbox.expires_at,
        "cpuCount": sandbox.resources.cpu_count,
        "memoryMB": sandbox.resources.memory_mb,
        "diskSizeMB": sandbox.resources.disk_mb,
        "state": "paused" if sandbox.state.is_asleep else "running",
        "envdUnresponsiveAtPause": True if sandbox.pause is not None and sandbox.pause.guest_silent else None,
        "metadata": dict(sandbox.metadata),
        "volumeMounts": [VolumeMount(name=one.name, path=one.path, readOnly=one.read_only) for one in sandbox.volumes],
        "runtime": sandbox.runtime,
    }


def snapshot_out(snapshot: Snapshot, project: Project) -> SnapshotOut:
    """The name, with its tag, while the snapshot holds one; else the id. Either starts sandboxes."""
    name = None if snapshot.name is None else f"{project.name}/{snapshot.name}:{snapshot.tag}"
    return SnapshotOut(
        snapshotID=name or f"{snapshot.id}:{snapshot.tag}",
        names=[] if name is None else [name],
        mode="full" if snapshot.kind is SnapshotKind.MEMORY else "filesystem",
        sizeBytes=snapshot.bytes,
        sandboxID=snapshot.source_id,
        createdAt=snapshot.created_at,
    )


def volume_out(volume: Volume) -> VolumeOut:
    return VolumeOut(volumeID=volume.id, name=volume.name, sizeMB=volume.size_mb)


def entry_out(entry: VolumeEntry) -> VolumeEntryStat:
    return VolumeEntryStat(
        name=entry.name,
        type=entry.type,
        path=entry.path,
        size=entry.size,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        atime=entry.atime,
        mtime=entry.mtime,
        ctime=entry.ctime,
        target=entry.target,
    )


def secret_out(secret: Secret) -> SecretOut:
    return SecretOut(
        secretID=secret.id,
        name=secret.name,
        currentVersion=secret.version,
        metadata=dict(secret.metadata),
        createdAt=secret.created_at,
        updatedAt=secret.updated_at,
    )


def usage_out(usage: SnapshotUsage, project: Project) -> dict[str, int]:
    """What sleeps and what is kept, in bytes on disk, and what the project may take there."""
    return {
        "pausedSandboxes": usage.paused,
        "pausedBytes": usage.paused_bytes,
        "snapshots": usage.snapshots,
        "snapshotBytes": usage.snapshot_bytes,
        "limitBytes": project.limits.snapshot_mb * 1024 * 1024,
        "pausedDays": project.limits.paused_days,
    }


def metric_out(metric: Metric) -> MetricOut:
    return MetricOut(
        timestamp=metric.at,
        timestampUnix=int(metric.at.timestamp()),
        cpuCount=metric.cpu_count,
        cpuUsedPct=metric.cpu_used_pct,
        memUsed=metric.memory_used,
        memTotal=metric.memory_total,
        memCache=metric.memory_cache,
        diskUsed=metric.disk_used,
        diskTotal=metric.disk_total,
    )


def log_entry_out(entry: LogEntry) -> dict[str, Any]:
    return {
        "timestamp": stamp(entry.at),
        "message": entry.message,
        "level": str(entry.level),
        "fields": {"logger": entry.logger, **entry.fields},
    }


def log_line_out(entry: LogEntry) -> dict[str, str]:
    """The older form: the CLI parses each line as JSON and reads level, logger, timestamp and message (2.7)."""
    line = {
        **entry.fields,
        "level": str(entry.level),
        "logger": entry.logger,
        "timestamp": stamp(entry.at),
        "message": entry.message,
    }
    return {"timestamp": stamp(entry.at), "line": json.dumps(line)}


def key_out(key: ApiKey) -> dict[str, Any]:
    prefix, _, suffix = key.mask.partition("...")
    return {
        "id": key.id,
        "name": key.name,
        "mask": {
            "prefix": API_KEY_PREFIX,
            "valueLength": 40,
            "maskedValuePrefix": prefix.removeprefix(API_KEY_PREFIX),
            "maskedValueSuffix": suffix,
        },
        "createdAt": stamp(key.created_at),
        "createdBy": None,
        "lastUsed": None if key.last_used_at is None else stamp(key.last_used_at),
    }


def stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def sandbox_token(sandbox: Sandbox) -> str:
    return page_token(sandbox.started_at, sandbox.id)


def parse_sandbox_token(token: str) -> tuple[datetime, str]:
    """Raises InvalidPageToken for anything that `sandbox_token` did not make."""
    return page_position(token, SANDBOX_ID)


def snapshot_token(snapshot: Snapshot) -> str:
    return page_token(snapshot.created_at, snapshot.id)


def parse_snapshot_token(token: str) -> tuple[datetime, str]:
    """Raises InvalidPageToken for anything that `snapshot_token` did not make."""
    return page_position(token, SNAPSHOT_ID)


def secret_token(secret: Secret) -> str:
    return page_token(secret.created_at, secret.id)


def parse_secret_token(token: str) -> tuple[datetime, str]:
    """Raises InvalidPageToken for anything that `secret_token` did not make."""
    return page_position(token, SECRET_ID)


def page_token(at: datetime, row_id: str) -> str:
    """The place of a row in its list."""
    return base64.urlsafe_b64encode(f"{stamp(at)}__{row_id}".encode()).decode()


def page_position(token: str, id_form: re.Pattern[str]) -> tuple[datetime, str]:
    """Raises InvalidPageToken."""
    try:
        at, row_id = base64.urlsafe_b64decode(token.encode("ascii")).decode("ascii").split("__", 1)
        parsed = datetime.fromisoformat(at)
    except ValueError:
        raise InvalidPageToken from None
    if parsed.utcoffset() != timedelta(0) or not id_form.fullmatch(row_id):
        raise InvalidPageToken
    return parsed, row_id


def in_utc(at: datetime) -> datetime:
    """Raises BadRequest for the first and last hours of the calendar, which have no name in UTC."""
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        raise BadRequest(f"cannot use the time {at.isoformat()}: it is outside the years 1 to 9999 in UTC") from None


def parse_metadata_filter(text: str) -> dict[str, str]:
    """`k=v&k2=v2`, each side percent-encoded by the client before the whole query was (wire contract 2.2)."""
    pairs: dict[str, str] = {}
    for part in filter(None, text.split("&")):
        key, found, value = part.partition("=")
        if not found:
            raise BadRequest(f"cannot read the metadata filter {part!r}: write key=value")
        pairs[_unquoted(key)] = _unquoted(value)
    return pairs


def _unquoted(text: str) -> str:
    for _ in range(_UNQUOTE_ROUNDS):
        plain = unquote(text)
        if plain == text:
            break
        text = plain
    return text
