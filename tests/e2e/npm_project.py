"""What the tests of the npm packages share: js/ with its dependencies, and ways to run what is in it."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.local_server import LocalServer

SOURCE = Path(__file__).parent / "js"
INSTALL_S = 300
SCRIPT_S = 250
COMMAND_S = 100


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of js/; its packages are kept in the cache under the digest of the lock file."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("needs node and npm on this machine")
    digest = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("WARREN_CACHE_DIR", "/var/cache/warren"))
    packages = (cache if os.access(cache, os.W_OK) else tmp_path_factory.mktemp("cache")) / "npm" / digest
    if not packages.exists():
        _install(packages)
    home = tmp_path_factory.mktemp("npm")
    for script in SOURCE.glob("*.mjs"):
        shutil.copy(script, home)
    (home / "node_modules").symlink_to(packages / "node_modules")
    return home


def _install(packages: Path) -> None:
    """In one step, for others may be doing the same."""
    packages.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=packages.parent) as folder:
        made = Path(folder) / "made"
        made.mkdir()
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(SOURCE / name, made)
        subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=made, check=True, timeout=INSTALL_S, capture_output=True)
        try:
            made.rename(packages)
        except OSError:
            assert packages.exists()


def run_script(project: Path, server: LocalServer, script: str, *words: str, runtime: str = "") -> Any:
    """The JSON that it prints last."""
    environment = {**os.environ, **server.environment, "WARREN_TEST_RUNTIME": runtime}
    run = subprocess.run(
        ["node", script, *words],
        cwd=project, env=environment, capture_output=True, text=True, timeout=SCRIPT_S, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def command_line(project: Path) -> list[str]:
    """`e2b` of `@e2b/cli`."""
    return ["node", str(project / "node_modules" / ".bin" / "e2b")]


def run_e2b(
    project: Path, server: LocalServer, *words: str, stdin: str = "", folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command_line(project), *words],
        cwd=folder or project, env={**os.environ, **server.environment, "NO_COLOR": "1"}, input=stdin,
        capture_output=True, text=True, timeout=COMMAND_S, check=False,
    )  # fmt: skip
