"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Spelled out instead of imported from `schema`: a migration stays what it was when the schema goes on.
_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_MICROSECONDS = sa.BigInteger()
_DOUBLE: sa.Double[float] = sa.Double()


def upgrade() -> None:
    _projects()
    _sandboxes()
    _templates()
    _observations()


def _projects() -> None:
    op.create_table(
        "projects",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("created_at", _MICROSECONDS, nullable=False),
        sa.Column("max_sandboxes", sa.Integer(), nullable=False),
        sa.Column("max_lifetime_s", sa.Integer(), nullable=False),
        sa.Column("max_cpu_count", sa.Integer(), nullable=False),
        sa.Column("max_memory_mb", sa.Integer(), nullable=False),
        sa.Column("max_disk_mb", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("project_id", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("digest", _TEXT, nullable=False),
        sa.Column("mask", _TEXT, nullable=False),
        sa.Column("created_at", _MICROSECONDS, nullable=False),
        sa.Column("last_used_at", _MICROSECONDS, nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_index("api_keys_of_project", "api_keys", ["project_id", "created_at", "id"])
    op.create_table(
        "idempotency",
        sa.Column("project_id", _TEXT, nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("body_digest", _TEXT, nullable=False),
        sa.Column("sandbox_id", _TEXT, nullable=True),
        sa.Column("claimed_at", _MICROSECONDS, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("project_id", "key"),
    )
    op.create_index("idempotency_by_time", "idempotency", ["claimed_at"])


def _sandboxes() -> None:
    op.create_table(
        "sandboxes",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("project_id", _TEXT, nullable=False),
        sa.Column("template_id", _TEXT, nullable=False),
        sa.Column("alias", _TEXT, nullable=True),
        sa.Column("runtime", _TEXT, nullable=False),
        sa.Column("cpu_count", sa.Integer(), nullable=False),
        sa.Column("memory_mb", sa.Integer(), nullable=False),
        sa.Column("disk_mb", sa.Integer(), nullable=False),
        sa.Column("pids", sa.Integer(), nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("desired", _TEXT, nullable=False),
        sa.Column("created_at", _MICROSECONDS, nullable=False),
        sa.Column("started_at", _MICROSECONDS, nullable=False),
        sa.Column("expires_at", _MICROSECONDS, nullable=False),
        sa.Column("timeout_s", sa.Integer(), nullable=False),
        sa.Column("secured", sa.Boolean(), nullable=False),
        sa.Column("network", _TEXT, nullable=False),
        sa.Column("metadata", _TEXT, nullable=False),
        sa.Column("end_reason", _TEXT, nullable=True),
        sa.Column("ended_at", _MICROSECONDS, nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("sandboxes_by_state", "sandboxes", ["state", "project_id", "started_at", "id"])
    op.create_table(
        "sandbox_labels",
        sa.Column("pair", _TEXT, nullable=False),
        sa.Column("sandbox_id", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["sandbox_id"], ["sandboxes.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("pair", "sandbox_id"),
    )
    op.create_index("sandbox_labels_of_sandbox", "sandbox_labels", ["sandbox_id"])


def _templates() -> None:
    op.create_table(
        "templates",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("project_id", _TEXT, nullable=True),
        sa.Column("build_id", _TEXT, nullable=False),
        sa.Column("digest", _TEXT, nullable=False),
        sa.Column("cpu_count", sa.Integer(), nullable=False),
        sa.Column("memory_mb", sa.Integer(), nullable=False),
        sa.Column("disk_mb", sa.Integer(), nullable=False),
        sa.Column("pids", sa.Integer(), nullable=False),
        sa.Column("created_at", _MICROSECONDS, nullable=False),
        sa.Column("runtime", _TEXT, nullable=True),
        sa.Column("default_user", _TEXT, nullable=False),
        sa.Column("default_workdir", _TEXT, nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("templates_of_project", "templates", ["project_id"])
    op.create_table(
        "template_names",
        sa.Column("template_id", _TEXT, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["template_id"], ["templates.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("template_id", "position"),
    )
    op.create_index("template_names_by_name", "template_names", ["name"])


def _observations() -> None:
    op.create_table(
        "metrics",
        sa.Column("sandbox_id", _TEXT, nullable=False),
        sa.Column("at", _MICROSECONDS, nullable=False),
        sa.Column("cpu_count", sa.Integer(), nullable=False),
        sa.Column("cpu_used_pct", _DOUBLE, nullable=False),
        sa.Column("memory_used", sa.BigInteger(), nullable=False),
        sa.Column("memory_total", sa.BigInteger(), nullable=False),
        sa.Column("memory_cache", sa.BigInteger(), nullable=False),
        sa.Column("disk_used", sa.BigInteger(), nullable=False),
        sa.Column("disk_total", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["sandbox_id"], ["sandboxes.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sandbox_id", "at"),
    )
    op.create_table(
        "logs",
        sa.Column("sandbox_id", _TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", _MICROSECONDS, nullable=False),
        sa.Column("severity", sa.Integer(), nullable=False),
        sa.Column("logger", _TEXT, nullable=False),
        sa.Column("message", _TEXT, nullable=False),
        sa.Column("fields", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["sandbox_id"], ["sandboxes.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sandbox_id", "number"),
    )
    op.create_index("logs_by_time", "logs", ["sandbox_id", "at", "number"])
