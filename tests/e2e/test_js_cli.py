"""`e2b`, the command line of the npm package `@e2b/cli`, unmodified."""

import json
import os
import pty
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from e2b import Sandbox, Template

from tests.e2e.local_server import LocalServer
from tests.e2e.npm_project import INSTALL_S, command_line, project, run_e2b
from tests.e2e.terminal import read_until
from tests.e2e.waiting import until

__all__ = ["project"]
pytestmark = pytest.mark.timeout(INSTALL_S + 300)
METRICS_WITHIN_S = 30
"""Seconds to the first sample of a sandbox."""


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


@pytest.mark.covers("L02", "S07", "S13", "S15", "S20")
def test_sandboxes_are_paused_resumed_and_kept_as_snapshots(
    project: Path, server: LocalServer, create: Callable[..., Sandbox], runtime: str
) -> None:
    def sandbox(*words: str) -> str:
        return e2b(project, server, "sandbox", *words)

    box = create()
    process = box.commands.run("exec sleep 1000", background=True, timeout=0)
    assert "has been paused" in sandbox("pause", box.sandbox_id)
    assert "is already paused" in sandbox("pause", box.sandbox_id)
    assert json.loads(sandbox("info", box.sandbox_id, "-f", "json"))["state"] == "paused"
    assert box.sandbox_id in {row["sandboxId"] for row in json.loads(sandbox("list", "-s", "paused", "-f", "json"))}
    assert "has been resumed" in sandbox("resume", box.sandbox_id)
    assert box.sandbox_id not in {row["sandboxId"] for row in json.loads(sandbox("list", "-s", "paused", "-f", "json"))}
    assert process.pid in {each.pid for each in box.commands.list()}

    name = f"js-cli-{runtime}"
    snapshot = sandbox("snapshot", "create", box.sandbox_id, "--name", name).split()[2]
    listed = json.loads(sandbox("snapshot", "list", box.sandbox_id, "-f", "json"))
    assert listed == [{"snapshotId": snapshot, "names": [f"default/{name}:default"]}]
    assert json.loads(sandbox("snapshot", "list", "--name", name, "-f", "json")) == listed
    copy = Sandbox.create(name, timeout=60)
    try:
        assert (process.pid in {each.pid for each in copy.commands.list()}) is (runtime == "runsc")
    finally:
        copy.kill()
    assert "has been deleted" in sandbox("snapshot", "delete", snapshot)
    assert "wasn't found" in run_e2b(project, server, "sandbox", "snapshot", "delete", snapshot).stderr
    assert json.loads(sandbox("snapshot", "list", box.sandbox_id, "-f", "json")) == []

    until(box.get_metrics, METRICS_WITHIN_S, "it was measured")
    (measured, *_) = sandbox("metrics", box.sandbox_id, "--format", "json").split()
    assert json.loads(measured)["memTotal"] > 0
    gone = run_e2b(project, server, "sandbox", "pause", "i" + "0" * 20)
    assert (gone.returncode, "wasn't found" in gone.stderr) == (1, True)


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
