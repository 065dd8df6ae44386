"""A project owns sandboxes, keys and quotas. E2B's wire calls it a team."""

from dataclasses import dataclass
from datetime import datetime

from warren.model import limits
from warren.model.errors import BadRequest, ResourceTooLarge
from warren.model.sandbox import Resources

API_KEY_PREFIX = "e2b_"
"""Older clients refuse keys that do not begin so (wire contract 1.2)."""


@dataclass(frozen=True, slots=True)
class ProjectLimits:
    """Quotas of one project; the error of each names it."""

    sandboxes: int = limits.PROJECT_MAX_SANDBOXES
    lifetime_s: int = limits.PROJECT_MAX_LIFETIME_S
    cpu_count: int = limits.PROJECT_MAX_CPU_COUNT
    memory_mb: int = limits.PROJECT_MAX_MEMORY_MB
    disk_mb: int = limits.PROJECT_MAX_DISK_MB
    snapshot_mb: int = limits.PROJECT_MAX_SNAPSHOT_MB
    paused_days: int = limits.PROJECT_PAUSED_DAYS

    def sized(self, cpu_count: int, memory_mb: int, disk_mb: int, pids: int = limits.DEFAULT_PIDS) -> Resources:
        """Sizes of a sandbox. Raises BadRequest below the minima, ResourceTooLarge above these limits."""
        for name, value, low, high in (
            ("cpuCount", cpu_count, limits.MIN_CPU_COUNT, self.cpu_count),
            ("memoryMB", memory_mb, limits.MIN_MEMORY_MB, self.memory_mb),
            ("diskMB", disk_mb, limits.MIN_DISK_MB, self.disk_mb),
        ):
            if value < low:
                raise BadRequest(f"cannot use {name} {value}: the least is {low}")
            if value > high:
                raise ResourceTooLarge(f"cannot use {name} {value}: the project's limit is {high}")
        return Resources(cpu_count, memory_mb, disk_mb, pids)

    secrets: int = limits.PROJECT_MAX_SECRETS
    volumes: int = limits.PROJECT_MAX_VOLUMES
    volume_mb: int = limits.PROJECT_MAX_VOLUME_MB


@dataclass(frozen=True, slots=True)
class Project:
    """`id` is a UUID."""

    id: str
    name: str
    created_at: datetime
    limits: ProjectLimits = ProjectLimits()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored: the secret itself is shown once and kept only as a SHA-256 digest."""

    id: str
    project_id: str
    name: str
    digest: str
    mask: str
    created_at: datetime
    last_used_at: datetime | None = None
