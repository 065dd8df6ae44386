"""The npm package `e2b`, unmodified, in one go (js/smoke.mjs)."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.local_server import LocalServer

SOURCE = Path(__file__).parent / "js"
INSTALL_S = 300


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """js/ with its dependencies, kept in the cache under the digest of the lock file."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("needs node and npm on this machine")
    digest = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("WARREN_CACHE_DIR", "/var/cache/warren"))
    base = cache / "npm" if os.access(cache, os.W_OK) else tmp_path_factory.mktemp("npm")
    home = base / f"smoke-{digest}"
    if not (home / "node_modules" / "e2b").exists():
        home.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(SOURCE / name, home / name)
        subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=home, check=True, timeout=INSTALL_S, capture_output=True)
    shutil.copy(SOURCE / "smoke.mjs", home / "smoke.mjs")
    return home


@pytest.mark.timeout(INSTALL_S + 120)
@pytest.mark.covers(
    "S01",
    "S03",
    "S04",
    "S08",
    "S09",
    "S10",
    "S12",
    "S15",
    "S19",
    "S20",
    "P01",
    "P10",
    "T01",
    "F01",
    "F02",
    "F05",
    "F11",
    "F12",
)
def test_the_javascript_client_works_unmodified(project: Path, server: LocalServer, runtime: str) -> None:
    environment = {**os.environ, **server.environment, "WARREN_TEST_RUNTIME": runtime}
    run = subprocess.run(
        ["node", "smoke.mjs"], cwd=project, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    said = json.loads(run.stdout.splitlines()[-1])
    assert said["ok"] is True
    assert said["host"].endswith(server.domain)
