"""Volumes, and which sandboxes and snapshots have them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("projects", sa.Column("max_volumes", sa.Integer(), nullable=False, server_default="100"))
    op.add_column("projects", sa.Column("max_volume_mb", sa.Integer(), nullable=False, server_default="512000"))
    for table in ("sandboxes", "snapshots"):
        op.add_column(table, sa.Column("volumes", _TEXT, nullable=False, server_default="[]"))
    op.create_table(
        "volumes",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("project_id", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("size_mb", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("server_id", _TEXT, nullable=False),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project_id", "name"),
    )
