"""Alembic runs this file; the connection and its transaction belong to `store.migrate`."""

from alembic import context

from warren.store.schema import metadata

# transactional_ddl: SQLite can do it too, and the caller has begun the transaction.
context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
