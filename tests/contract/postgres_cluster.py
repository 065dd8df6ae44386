"""A Postgres of our own for the tests: in a temporary folder, on a Unix socket, run by an unprivileged user."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

START_DEADLINE_S = 60
_USER = "postgres"


def binaries() -> Path | None:
    """Debian keeps the server out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """The URL of a running server, without a database name. Skips the test where there is no server."""
    if url := os.environ.get("WARREN_TEST_POSTGRES_URL"):
        yield url.rsplit("/", 1)[0] + "/{database}"
        return
    bin_dir = binaries()
    if bin_dir is None:
        pytest.skip("no Postgres server here: install Debian's postgresql or set WARREN_TEST_POSTGRES_URL")
    as_user = [] if os.geteuid() else ["runuser", "-u", _USER, "--"]
    if as_user:
        shutil.chown(folder, _USER)
    data = folder / "data"

    def run(name: str, *arguments: str) -> None:
        subprocess.run(
            [*as_user, str(bin_dir / name), *arguments],
            check=True, timeout=START_DEADLINE_S, cwd=folder, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    run("initdb", "-D", str(data), "-A", "trust", "-U", _USER, "--no-sync", "--locale=C.UTF-8")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=60"
    run("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql+asyncpg://{_USER}@/{{database}}?host={folder}"
    finally:
        run("pg_ctl", "-D", str(data), "-w", "-m", "immediate", "stop")
