"""What is measured of a sandbox and what it logs."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Usage:
    """What an engine measures from outside, so that the sandbox cannot lie about it. Bytes and CPU seconds."""

    cpu_seconds: float
    cpu_count: int
    memory_used: int
    memory_cache: int
    memory_total: int
    disk_used: int
    disk_total: int


@dataclass(frozen=True, slots=True)
class Metric:
    """One sample. `cpu_used_pct` is of one CPU: 200.0 is two CPUs busy. Memory and disk in bytes."""

    sandbox_id: str
    at: datetime
    cpu_count: int
    cpu_used_pct: float
    memory_used: int
    memory_total: int
    memory_cache: int
    disk_used: int
    disk_total: int


class Level(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of a sandbox's log; `logger` is "warren" for the server's own, else a part of the guest."""

    at: datetime
    level: Level
    logger: str
    message: str
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
