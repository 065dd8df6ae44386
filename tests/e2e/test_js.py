"""The npm packages `e2b`, `@e2b/cli` and `@e2b/code-interpreter`, unmodified."""

import hashlib
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2b import Sandbox, Template

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
    if not (home / "node_modules" / "@e2b" / "code-interpreter").exists():
        home.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(SOURCE / name, home / name)
        subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=home, check=True, timeout=INSTALL_S, capture_output=True)
    for script in SOURCE.glob("*.mjs"):
        shutil.copy(script, home / script.name)
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
    said = run_script(project, server, runtime, "smoke.mjs")
    assert said["ok"] is True
    assert said["host"].endswith(server.domain)


@pytest.fixture
def name(server: LocalServer) -> Iterator[str]:
    """Of a template that goes with the test."""
    chosen = f"t{uuid.uuid4().hex[:12]}"
    yield chosen
    httpx.delete(f"{server.api_url}/templates/{chosen}", headers={"X-API-KEY": server.api_key})


@pytest.mark.timeout(INSTALL_S + 300)
@pytest.mark.covers("B01", "B03", "B06", "B07", "B08")
def test_the_javascript_client_builds_templates(project: Path, server: LocalServer, name: str) -> None:
    run = subprocess.run(
        ["node", "template.mjs", name],
        cwd=project, env={**os.environ, **server.environment}, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert json.loads(run.stdout.splitlines()[-1])["ok"] is True


@pytest.mark.timeout(INSTALL_S + 300)
@pytest.mark.covers("B09")
def test_the_command_line_of_e2b_lists_publishes_and_deletes(project: Path, server: LocalServer, name: str) -> None:
    def e2b(*words: str) -> str:
        run = subprocess.run(
            ["node", "node_modules/.bin/e2b", "template", *words],
            cwd=project, env={**os.environ, **server.environment, "NO_COLOR": "1"}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
        return run.stdout

    info = Template.build(Template().from_template("base").run_cmd("true"), name)
    rows = {row["templateID"]: row for row in json.loads(e2b("list", "--format", "json"))}
    assert (rows[info.template_id]["aliases"], rows[info.template_id]["public"]) == ([name], False)
    e2b("publish", "--yes", info.template_id)
    assert json.loads(e2b("list", "--format", "json"))
    with Sandbox.create(f"default/{name}"):
        pass
    e2b("unpublish", "--yes", info.template_id)
    e2b("delete", "--yes", info.template_id)
    assert not Template.exists(name)


@pytest.mark.timeout(INSTALL_S + 240)
@pytest.mark.covers("I01", "I02", "I03", "I04", "I05", "I06", "I07")
def test_the_javascript_code_interpreter_works_unmodified(project: Path, server: LocalServer, runtime: str) -> None:
    assert run_script(project, server, runtime, "interpreter.mjs")["ok"] is True


def run_script(project: Path, server: LocalServer, runtime: str, script: str) -> Any:
    environment = {**os.environ, **server.environment, "WARREN_TEST_RUNTIME": runtime}
    run = subprocess.run(
        ["node", script], cwd=project, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])
