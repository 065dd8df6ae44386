"""Rows of metrics and logs."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, literal, select

from warren.contracts.store import LogQuery
from warren.model import limits
from warren.model.observation import Level, LogEntry, Metric
from warren.model.sandbox import State
from warren.store import schema
from warren.store.database import insert_new
from warren.store.retention import METRICS_KEPT

IDS_PER_STATEMENT = 500
"""Sandbox ids in one IN list; SQLite and Postgres both stop at 32,767 parameters."""

_METRICS = schema.metrics.c
_LOGS = schema.logs.c
_SANDBOXES = schema.sandboxes.c
_LEVELS: tuple[Level, ...] = tuple(Level)


def add_metrics(connection: Connection, metrics: Sequence[Metric]) -> None:
    for first in range(0, len(metrics), IDS_PER_STATEMENT):
        batch = metrics[first : first + IDS_PER_STATEMENT]
        ids = {metric.sandbox_id for metric in batch}
        known = set(connection.scalars(select(_SANDBOXES.id).where(_SANDBOXES.id.in_(ids))).all())
        rows = [_metric_row(metric) for metric in batch if metric.sandbox_id in known]
        if rows:
            connection.execute(insert_new(connection, schema.metrics), rows)
        oldest_kept = max(metric.at for metric in batch) - METRICS_KEPT
        connection.execute(delete(schema.metrics).where(_METRICS.sandbox_id.in_(known), _METRICS.at < oldest_kept))


def metrics(
    connection: Connection, sandbox_id: str, start: datetime | None, end: datetime | None, limit: int
) -> Sequence[Metric]:
    wanted = [_METRICS.sandbox_id == sandbox_id]
    if start is not None:
        wanted.append(_METRICS.at >= start)
    if end is not None:
        wanted.append(_METRICS.at <= end)
    newest_first = select(schema.metrics).where(*wanted).order_by(_METRICS.at.desc()).limit(limit)
    rows = connection.execute(newest_first).mappings().all()
    return [Metric(**row) for row in reversed(rows)]


def latest_metrics(connection: Connection, project_id: str, sandbox_ids: Sequence[str]) -> Mapping[str, Metric]:
    latest: dict[str, Metric] = {}
    for first in range(0, len(sandbox_ids), IDS_PER_STATEMENT):
        ids = sandbox_ids[first : first + IDS_PER_STATEMENT]
        other = schema.metrics.alias()
        newest = select(func.max(other.c.at)).where(other.c.sandbox_id == _SANDBOXES.id).scalar_subquery()
        of_running = (
            select(schema.metrics)
            .join_from(schema.sandboxes, schema.metrics)
            .where(_SANDBOXES.id.in_(ids), _SANDBOXES.project_id == project_id)
            .where(_SANDBOXES.state == State.RUNNING.value, _METRICS.at == newest)
        )
        rows = connection.execute(of_running).mappings()
        latest.update({row["sandbox_id"]: Metric(**row) for row in rows})
    return latest


def add_logs(connection: Connection, sandbox_id: str, entries: Sequence[LogEntry]) -> None:
    owner = select(_SANDBOXES.id).where(_SANDBOXES.id == sandbox_id)
    # The lock keeps two servers on one Postgres from handing out the same numbers.
    locked = connection.execute(owner.with_for_update(key_share=True))
    if not entries or locked.one_or_none() is None:
        return
    last = connection.scalar(select(func.max(_LOGS.number)).where(_LOGS.sandbox_id == sandbox_id)) or 0
    kept = entries[-limits.LOGS_KEPT_PER_SANDBOX :]
    rows = [_log_row(sandbox_id, number, entry) for number, entry in enumerate(kept, last + 1)]
    connection.execute(insert(schema.logs), rows)
    dropped = last + len(rows) - limits.LOGS_KEPT_PER_SANDBOX
    if dropped > 0:
        connection.execute(delete(schema.logs).where(_LOGS.sandbox_id == sandbox_id, _LOGS.number <= dropped))


def logs(connection: Connection, sandbox_id: str, query: LogQuery) -> Sequence[LogEntry]:
    wanted: list[ColumnElement[bool]] = [_LOGS.sandbox_id == sandbox_id]
    if query.start is not None:
        wanted.append(_LOGS.at >= query.start if query.ascending else _LOGS.at <= query.start)
    if query.level is not None:
        wanted.append(_LOGS.severity >= _LEVELS.index(query.level))
    if query.search:
        # Not LIKE: SQLite's ignores case, Postgres's does not.
        position = func.instr if connection.dialect.name == "sqlite" else func.strpos
        wanted.append(position(_LOGS.message, literal(query.search, schema.Text())) > 0)
    columns = (_LOGS.at, _LOGS.number)
    order = columns if query.ascending else tuple(column.desc() for column in columns)
    chosen = select(schema.logs).where(*wanted).order_by(*order).limit(query.limit)
    return [_log(row) for row in connection.execute(chosen)]


def _metric_row(metric: Metric) -> dict[str, object]:
    return {
        "sandbox_id": metric.sandbox_id,
        "at": metric.at,
        "cpu_count": metric.cpu_count,
        "cpu_used_pct": metric.cpu_used_pct,
        "memory_used": metric.memory_used,
        "memory_total": metric.memory_total,
        "memory_cache": metric.memory_cache,
        "disk_used": metric.disk_used,
        "disk_total": metric.disk_total,
    }


def _log_row(sandbox_id: str, number: int, entry: LogEntry) -> dict[str, object]:
    return {
        "sandbox_id": sandbox_id,
        "number": number,
        "at": entry.at,
        "severity": _LEVELS.index(entry.level),
        "logger": entry.logger,
        "message": entry.message[: limits.LOG_MESSAGE_MAX],
        "fields": json.dumps(dict(entry.fields)),
    }


def _log(row: Row[Any]) -> LogEntry:
    severity: int = row.severity
    return LogEntry(row.at, _LEVELS[severity], row.logger, row.message, json.loads(row.fields))
