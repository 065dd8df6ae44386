"""The npm packages `e2b` and `@e2b/code-interpreter`, unmodified."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.local_server import LocalServer
from tests.e2e.npm_project import INSTALL_S, project, run_script

__all__ = ["project"]


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
    said = run_script(project, server, "smoke.mjs", runtime=runtime)
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
    assert run_script(project, server, "template.mjs", name)["ok"] is True


@pytest.mark.timeout(INSTALL_S + 120)
@pytest.mark.covers("V01", "V02", "S23", "K01")
def test_the_javascript_client_keeps_volumes_and_secrets(project: Path, server: LocalServer, runtime: str) -> None:
    assert run_script(project, server, "volumes.mjs", runtime=runtime)["ok"] is True


@pytest.mark.timeout(INSTALL_S + 240)
@pytest.mark.covers("I01", "I02", "I03", "I04", "I05", "I06", "I07")
def test_the_javascript_code_interpreter_works_unmodified(project: Path, server: LocalServer, runtime: str) -> None:
    assert run_script(project, server, "interpreter.mjs", runtime=runtime)["ok"] is True
