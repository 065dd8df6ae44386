"""The command line. It talks to a server as any client does; only `serve`, `env` and `key` also work on files."""
