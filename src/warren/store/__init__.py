"""What survives a restart: the reference in memory, and SQLite or Postgres behind one code path."""
