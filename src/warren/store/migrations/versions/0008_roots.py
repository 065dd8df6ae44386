"""Sandboxes and snapshots know the template that their line of copies began with."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("sandboxes", sa.Column("root_template_id", _TEXT, nullable=False, server_default=""))
    op.execute("UPDATE sandboxes SET root_template_id = template_id")
    _find_roots("snapshots", "template_id")
    _find_roots("sandboxes", "root_template_id")


def _find_roots(table: str, column: str) -> None:
    """A template's id in place of a snapshot's, as long as there is one: a step up the line each time."""
    rows = sa.table(table, sa.column(column))
    above = sa.table("snapshots", sa.column("id"), sa.column("template_id")).alias("above")
    one_up = sa.select(above.c.template_id).where(above.c.id == rows.c[column]).scalar_subquery()
    step = sa.update(rows).where(rows.c[column].in_(sa.select(above.c.id))).values({column: one_up})
    while op.get_bind().execute(step).rowcount:
        pass
