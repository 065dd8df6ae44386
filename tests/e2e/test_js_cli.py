"""`e2b`, the command line of the npm package `@e2b/cli`, unmodified."""

import json
import os
import pty
import subprocess
import uuid
from pathlib import Path

import pytest
from e2b import Sandbox, Template

from tests.e2e.local_server import LocalServer
from tests.e2e.npm_project import INSTALL_S, command_line, project, run_e2b
from tests.e2e.terminal import read_until

__all__ = ["project"]
pytestmark = pytest.mark.timeout(INSTALL_S + 300)


def e2b(project: Path, server: LocalServer, *words: str, stdin: str = "") -> str:
    done = run_e2b(project, server, *words, stdin=stdin)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.covers("B09", "L01")
def test_templates_are_listed_published_and_deleted(project: Path, server: LocalServer) -> None:
    name = f"t{uuid.uuid4().hex[:12]}"
    info = Template.build(Template().from_template("base").run_cmd("true"), name)
    try:
        rows = {row["templateID"]: row for row in json.loads(e2b(project, server, "template", "list", "-f", "json"))}
        assert (rows[info.template_id]["aliases"], rows[info.template_id]["public"]) == ([name], False)
        e2b(project, server, "template", "publish", "--yes", info.template_id)
        with Sandbox.create(f"default/{name}"):
            pass
        e2b(project, server, "template", "unpublish", "--yes", info.template_id)
    finally:
        e2b(project, server, "template", "delete", "--yes", info.template_id)
    assert not Template.exists(name)


@pytest.mark.covers("L02")
def test_sandboxes_are_made_used_and_killed(project: Path, server: LocalServer) -> None:
    def sandbox(*words: str, stdin: str = "") -> str:
        return e2b(project, server, "sandbox", *words, stdin=stdin)

    sandbox_id = next(word for word in sandbox("create", "base", "--detach").split() if server_knows(word))
    try:
        assert sandbox_id in {row["sandboxId"] for row in json.loads(sandbox("list", "-f", "json"))}
        assert json.loads(sandbox("info", sandbox_id, "-f", "json"))["sandboxId"] == sandbox_id
        assert sandbox("exec", "-e", "COLOUR=blue", sandbox_id, "echo $COLOUR; cat", stdin="fed\n") == "blue\nfed\n"
        assert run_e2b(project, server, "sandbox", "exec", sandbox_id, "exit 7").returncode == 7
        assert "exit 7" in sandbox("logs", sandbox_id)
    finally:
        sandbox("kill", sandbox_id)
    assert not server_knows(sandbox_id)


@pytest.mark.covers("L02")
def test_a_terminal_is_connected(project: Path, server: LocalServer, box: Sandbox) -> None:
    master, slave = pty.openpty()
    command = [*command_line(project), "sandbox", "connect", box.sandbox_id]
    environment = {**os.environ, **server.environment, "TERM": "xterm-256color"}
    shell = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True)
    os.close(slave)
    try:
        read_until(master, b"$ ")
        os.write(master, b'tty && echo "in"side; exit\n')
        assert b"/dev/pts/" in read_until(master, b"inside")
        assert shell.wait(30) == 0
    finally:
        shell.kill()
        shell.wait()
        os.close(master)


def server_knows(sandbox_id: str) -> bool:
    return sandbox_id.isalnum() and any(row.sandbox_id == sandbox_id for row in Sandbox.list().next_items())
