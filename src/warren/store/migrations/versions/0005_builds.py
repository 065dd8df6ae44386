"""Templates have builds, which tags name."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_OF_BUILDS = ("build_id", "digest", "cpu_count", "memory_mb", "disk_mb", "pids", "runtime", "default_user",
              "default_workdir")  # fmt: skip


def upgrade() -> None:
    _tables()
    _move_what_is_there()
    for table in ("sandboxes", "snapshots"):
        op.add_column(table, sa.Column("template_envs", _TEXT, nullable=False, server_default="{}"))


def _tables() -> None:
    op.create_table(
        "builds",
        sa.Column("template_id", _TEXT, nullable=False),
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("server_id", _TEXT, nullable=False),
        sa.Column("status", _TEXT, nullable=False),
        sa.Column("cpu_count", sa.Integer(), nullable=False),
        sa.Column("memory_mb", sa.Integer(), nullable=False),
        sa.Column("disk_mb", sa.Integer(), nullable=False),
        sa.Column("pids", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("tags", _TEXT, nullable=False),
        sa.Column("reason", _TEXT, nullable=True),
        sa.Column("reason_step", _TEXT, nullable=True),
        sa.Column("digest", _TEXT, nullable=True),
        sa.Column("runtime", _TEXT, nullable=True),
        sa.Column("default_user", _TEXT, nullable=False, server_default=""),
        sa.Column("default_workdir", _TEXT, nullable=False, server_default=""),
        sa.Column("envs", _TEXT, nullable=False, server_default="{}"),
        sa.Column("start_command", _TEXT, nullable=True),
        sa.Column("ready_command", _TEXT, nullable=True),
        sa.Column("checkpoint_id", _TEXT, nullable=True),
        sa.ForeignKeyConstraint(["template_id"], ["templates.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("template_id", "id"),
    )
    op.create_index("builds_by_time", "builds", ["template_id", "created_at", "id"])
    op.create_index("builds_of_server", "builds", ["server_id", "status"])
    op.create_table(
        "template_tags",
        sa.Column("template_id", _TEXT, nullable=False),
        sa.Column("tag", _TEXT, nullable=False),
        sa.Column("build_id", _TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        _build_of(),
        sa.PrimaryKeyConstraint("template_id", "tag"),
    )
    op.create_table(
        "build_lines",
        sa.Column("template_id", _TEXT, nullable=False),
        sa.Column("build_id", _TEXT, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("severity", sa.Integer(), nullable=False),
        sa.Column("step", _TEXT, nullable=True),
        sa.Column("message", _TEXT, nullable=False),
        _build_of(),
        sa.PrimaryKeyConstraint("template_id", "build_id", "number"),
    )


def _build_of() -> sa.ForeignKeyConstraint:
    columns, there = ["template_id", "build_id"], ["builds.template_id", "builds.id"]
    return sa.ForeignKeyConstraint(columns, there, ondelete="CASCADE")


def _move_what_is_there() -> None:
    """Each template so far is one finished build, and `default` names it."""
    op.execute(
        "INSERT INTO builds (template_id, id, server_id, status, cpu_count, memory_mb, disk_mb, pids, created_at,"
        " updated_at, finished_at, tags, digest, runtime, default_user, default_workdir) SELECT id, build_id, '',"
        " 'ready', cpu_count, memory_mb, disk_mb, pids, created_at, created_at, created_at, '[\"default\"]', digest,"
        " runtime, default_user, default_workdir FROM templates"
    )
    op.execute(
        "INSERT INTO template_tags (template_id, tag, build_id, created_at)"
        " SELECT id, 'default', build_id, created_at FROM templates"
    )
    for column in (
        sa.Column("updated_at", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("spawn_count", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("last_spawned_at", sa.BigInteger(), nullable=True),
    ):
        op.add_column("templates", column)
    op.execute("UPDATE templates SET updated_at = created_at")
    for name in _OF_BUILDS:
        op.drop_column("templates", name)
    op.drop_index("templates_of_project", "templates")
    op.create_index("templates_of_project", "templates", ["project_id", "created_at", "id"])
