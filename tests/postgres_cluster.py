"""A Postgres of the tests' own: in a temporary folder, on a Unix socket, run by an unprivileged user."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

COMMAND_DEADLINE_S = 120
_USER = "postgres"
_OPTIONS = {
    "listen_addresses": "''",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
}


class Cluster:
    """`start` and `stop` may be called in turn any number of times: the data stay between them."""

    def __init__(self, folder: Path, bin_dir: Path) -> None:
        self._folder, self._bin_dir = folder, bin_dir

    def url(self, database: str) -> str:
        return f"postgresql://{_USER}@/{database}?host={self._folder}"

    def make(self) -> None:
        self.run("initdb", "-D", "data", "-A", "trust", "-U", _USER, "--no-sync", "--locale=C.UTF-8")

    def start(self) -> None:
        options = " ".join(f"-c {name}={value}" for name, value in _OPTIONS.items())
        options += f" -c unix_socket_directories={self._folder}"
        self.run("pg_ctl", "-D", "data", "-w", "-t", str(COMMAND_DEADLINE_S), "-l", "log", "-o", options, "start")

    def stop(self) -> None:
        """At once, as a crash would: clients are cut off."""
        self.run("pg_ctl", "-D", "data", "-w", "-t", str(COMMAND_DEADLINE_S), "-m", "immediate", "stop")

    def create(self, database: str) -> str:
        """The URL of a new, empty database."""
        self.run("createdb", "-h", str(self._folder), "-U", _USER, database)
        return self.url(database)

    def drop(self, database: str) -> None:
        self.run("dropdb", "-h", str(self._folder), "-U", _USER, "--force", database)

    def run(self, name: str, *arguments: str) -> None:
        as_user = [] if os.geteuid() else ["runuser", "-u", _USER, "--"]
        subprocess.run(
            [*as_user, str(self._bin_dir / name), *arguments],
            check=True, timeout=COMMAND_DEADLINE_S + 30, cwd=self._folder, stdout=subprocess.DEVNULL,
        )  # fmt: skip


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A running one, gone afterwards. Skips the test where Postgres is not installed."""
    # Debian keeps the server out of PATH.
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no Postgres server here: run scripts/setup tests")
    # Not pytest's own folder: another user must be able to enter it, and a socket's path is short.
    with tempfile.TemporaryDirectory(prefix="warren-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if not os.geteuid():
            shutil.chown(folder, _USER)
        made = Cluster(folder, found[-1].parent)
        made.make()
        made.start()
        try:
            yield made
        finally:
            made.stop()
