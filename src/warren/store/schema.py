"""The tables, and how values are written into them. A change here needs a migration: `tests/contract` compares the two.

No table holds a secret in the open: API keys are SHA-256 digests, the values of secrets are sealed with a key that is
not in the database, environments and tokens of sandboxes are never stored.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    false,
    true,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """Whole microseconds since 1970: exact, and ordered alike in both databases."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Text(TypeDecorator[str]):
    """Text compared byte by byte. What Postgres or UTF-8 cannot hold (NUL, lone surrogates; a sandbox may log them)
    becomes U+FFFD, in what is stored and in what is searched for alike."""

    impl = String().with_variant(String(collation="C"), "postgresql")
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


metadata = MetaData()

projects = Table(
    "projects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", Instant, nullable=False),
    Column("max_sandboxes", Integer, nullable=False),
    Column("max_lifetime_s", Integer, nullable=False),
    Column("max_cpu_count", Integer, nullable=False),
    Column("max_memory_mb", Integer, nullable=False),
    Column("max_disk_mb", Integer, nullable=False),
    Column("max_snapshot_mb", Integer, nullable=False, server_default="51200"),
    Column("max_paused_days", Integer, nullable=False, server_default="30"),
    Column("max_secrets", Integer, nullable=False, server_default="1000"),
    Column("max_volumes", Integer, nullable=False, server_default="100"),
    Column("max_volume_mb", Integer, nullable=False, server_default="512000"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("mask", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("last_used_at", Instant),
    Index("api_keys_of_project", "project_id", "created_at", "id"),
)

servers = Table(
    "servers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("seen_at", Instant, nullable=False),
)

sandboxes = Table(
    "sandboxes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("template_id", Text, nullable=False),
    Column("alias", Text),
    Column("runtime", Text, nullable=False),
    Column("cpu_count", Integer, nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("disk_mb", Integer, nullable=False),
    Column("pids", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("desired", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("timeout_s", Integer, nullable=False),
    Column("secured", Boolean, nullable=False),
    Column("network", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("end_reason", Text),
    Column("ended_at", Instant),
    # Empty in rows from before servers had ids; the first one to register takes those.
    Column("server_id", Text, nullable=False, server_default=""),
    Column("root_template_id", Text, nullable=False, server_default=""),
    Column("digest", Text, nullable=False, server_default=""),
    Column("default_user", Text, nullable=False, server_default="user"),
    Column("default_workdir", Text, nullable=False, server_default="/home/user"),
    # JSON: the variables of its template.
    Column("template_envs", Text, nullable=False, server_default="{}"),
    Column("auto_pause", Boolean, nullable=False, server_default=false()),
    Column("auto_pause_memory", Boolean, nullable=False, server_default=true()),
    Column("auto_resume", Boolean, nullable=False, server_default=false()),
    # [{"id", "name", "path", "read_only"}], as JSON.
    Column("volumes", Text, nullable=False, server_default="[]"),
    # How it sleeps: all empty while it does not, except that the last ones mean nothing without a kind.
    Column("pause_kind", Text),
    Column("pause_checkpoint", Text),
    Column("pause_by", Text),
    Column("pause_at", Instant),
    Column("pause_bytes", BigInteger, nullable=False, server_default="0"),
    Column("pause_guest_silent", Boolean, nullable=False, server_default=false()),
    # Serves the page of a list in its order, the counts, the live ones of all projects, and the prune.
    Index("sandboxes_by_state", "state", "project_id", "started_at", "id"),
    # Serves a server's looks for its own live ones, every second.
    Index("sandboxes_of_server", "server_id", "state"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("checkpoint_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("source_id", Text, nullable=False),
    Column("template_id", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("default_user", Text, nullable=False),
    Column("default_workdir", Text, nullable=False),
    # JSON, as in `sandboxes`.
    Column("template_envs", Text, nullable=False, server_default="{}"),
    Column("runtime", Text, nullable=False),
    Column("cpu_count", Integer, nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("disk_mb", Integer, nullable=False),
    Column("pids", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("volumes", Text, nullable=False, server_default="[]"),
    # The version name it holds now; rows without a name do not collide.
    Column("name", Text),
    Column("tag", Text, nullable=False),
    UniqueConstraint("project_id", "name", "tag"),
    # Serves the page of a list in its order.
    Index("snapshots_of_project", "project_id", "created_at", "id"),
)

sandbox_labels = Table(
    "sandbox_labels",
    metadata,
    # SHA-256 of one metadata key and value: both can be longer than Postgres takes into an index.
    Column("pair", Text, primary_key=True),
    Column("sandbox_id", Text, ForeignKey("sandboxes.id", ondelete="CASCADE"), primary_key=True),
    Index("sandbox_labels_of_sandbox", "sandbox_id"),
)

templates = Table(
    "templates",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id")),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False, server_default="0"),
    Column("public", Boolean, nullable=False),
    # How often and when last a sandbox was started from it; not counted for built-in ones.
    Column("spawn_count", Integer, nullable=False, server_default="0"),
    Column("last_spawned_at", Instant),
    # Its own idle ladder, as settings write one; NULL for what the server's settings say.
    Column("idle", Text),
    # Serves the page of a list in its order.
    Index("templates_of_project", "project_id", "created_at", "id"),
)

template_names = Table(
    "template_names",
    metadata,
    Column("template_id", Text, ForeignKey("templates.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Index("template_names_by_name", "name"),
)

volumes = Table(
    "volumes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("size_mb", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("server_id", Text, nullable=False),
    Column("ready", Boolean, nullable=False),
    UniqueConstraint("project_id", "name"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("folded", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    UniqueConstraint("project_id", "folded"),
    # Serves the page of a list in its order.
    Index("secrets_of_project", "project_id", "created_at", "id"),
)

secret_values = Table(
    "secret_values",
    metadata,
    Column("secret_id", Text, ForeignKey("secrets.id", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("key_id", Text, nullable=False),
    Column("sealed", Text, nullable=False),
)

builds = Table(
    "builds",
    metadata,
    Column("template_id", Text, ForeignKey("templates.id", ondelete="CASCADE"), primary_key=True),
    Column("id", Text, primary_key=True),
    # Empty for what every server has.
    Column("server_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("cpu_count", Integer, nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("disk_mb", Integer, nullable=False),
    Column("pids", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("finished_at", Instant),
    # JSON: the tags that it gets when it is ready.
    Column("tags", Text, nullable=False),
    Column("reason", Text),
    Column("reason_step", Text),
    # What it made: meaningless without a digest.
    Column("digest", Text),
    Column("runtime", Text),
    Column("default_user", Text, nullable=False, server_default=""),
    Column("default_workdir", Text, nullable=False, server_default=""),
    Column("envs", Text, nullable=False, server_default="{}"),
    Column("start_command", Text),
    Column("ready_command", Text),
    Column("checkpoint_id", Text),
    # Serves the page of a template's builds in its order.
    Index("builds_by_time", "template_id", "created_at", "id"),
    # Serves what a server that starts finds unfinished.
    Index("builds_of_server", "server_id", "status"),
)

template_tags = Table(
    "template_tags",
    metadata,
    Column("template_id", Text, primary_key=True),
    Column("tag", Text, primary_key=True),
    Column("build_id", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    ForeignKeyConstraint(["template_id", "build_id"], ["builds.template_id", "builds.id"], ondelete="CASCADE"),
)

build_lines = Table(
    "build_lines",
    metadata,
    Column("template_id", Text, primary_key=True),
    Column("build_id", Text, primary_key=True),
    # Counts up from 0 within one build.
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("severity", Integer, nullable=False),
    Column("step", Text),
    Column("message", Text, nullable=False),
    ForeignKeyConstraint(["template_id", "build_id"], ["builds.template_id", "builds.id"], ondelete="CASCADE"),
)

metrics = Table(
    "metrics",
    metadata,
    Column("sandbox_id", Text, ForeignKey("sandboxes.id", ondelete="CASCADE"), primary_key=True),
    Column("at", Instant, primary_key=True),
    Column("cpu_count", Integer, nullable=False),
    Column("cpu_used_pct", Double, nullable=False),
    Column("memory_used", BigInteger, nullable=False),
    Column("memory_total", BigInteger, nullable=False),
    Column("memory_cache", BigInteger, nullable=False),
    Column("disk_used", BigInteger, nullable=False),
    Column("disk_total", BigInteger, nullable=False),
)

logs = Table(
    "logs",
    metadata,
    Column("sandbox_id", Text, ForeignKey("sandboxes.id", ondelete="CASCADE"), primary_key=True),
    # Counts up within one sandbox, so that trimming to the newest rows is one comparison.
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("severity", Integer, nullable=False),
    Column("logger", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("fields", Text, nullable=False),
    Index("logs_by_time", "sandbox_id", "at", "number"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("project_id", Text, ForeignKey("projects.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_digest", Text, nullable=False),
    # Null only in rows of earlier versions.
    Column("sandbox_id", Text),
    Column("claimed_at", Instant, nullable=False),
    Index("idempotency_by_time", "claimed_at"),
)
