"""How sandboxes sleep, and snapshots."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    _projects()
    _sandboxes()
    _snapshots()


def _projects() -> None:
    op.add_column("projects", sa.Column("max_snapshot_mb", sa.Integer(), nullable=False, server_default="51200"))
    op.add_column("projects", sa.Column("max_paused_days", sa.Integer(), nullable=False, server_default="30"))


def _sandboxes() -> None:
    for column in (
        sa.Column("digest", _TEXT, nullable=False, server_default=""),
        sa.Column("default_user", _TEXT, nullable=False, server_default="user"),
        sa.Column("default_workdir", _TEXT, nullable=False, server_default="/home/user"),
        sa.Column("auto_pause", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("auto_pause_memory", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("auto_resume", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("pause_kind", _TEXT, nullable=True),
        sa.Column("pause_checkpoint", _TEXT, nullable=True),
        sa.Column("pause_by", _TEXT, nullable=True),
        sa.Column("pause_at", sa.BigInteger(), nullable=True),
        sa.Column("pause_bytes", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("pause_guest_silent", sa.Boolean(), nullable=False, server_default=sa.false()),
    ):
        op.add_column("sandboxes", column)
    # Sandboxes that run since before: what their template is now is the nearest to what it was.
    for name in ("digest", "default_user", "default_workdir"):
        op.execute(
            f"UPDATE sandboxes SET {name} = COALESCE("  # noqa: S608 - the names are ours
            f"(SELECT templates.{name} FROM templates WHERE templates.id = sandboxes.template_id), {name})"
        )


def _snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("project_id", _TEXT, nullable=False),
        sa.Column("checkpoint_id", _TEXT, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("source_id", _TEXT, nullable=False),
        sa.Column("template_id", _TEXT, nullable=False),
        sa.Column("digest", _TEXT, nullable=False),
        sa.Column("default_user", _TEXT, nullable=False),
        sa.Column("default_workdir", _TEXT, nullable=False),
        sa.Column("runtime", _TEXT, nullable=False),
        sa.Column("cpu_count", sa.Integer(), nullable=False),
        sa.Column("memory_mb", sa.Integer(), nullable=False),
        sa.Column("disk_mb", sa.Integer(), nullable=False),
        sa.Column("pids", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("name", _TEXT, nullable=True),
        sa.Column("tag", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project_id", "name", "tag"),
    )
    op.create_index("snapshots_of_project", "snapshots", ["project_id", "created_at", "id"])
