"""The command line against the real server."""

import json
import os
import pty
import subprocess

import pytest
from e2b import Sandbox

from tests.e2e.local_server import LocalServer, warren_command
from tests.e2e.terminal import read_until


@pytest.mark.covers("S01", "S03", "S09", "S12")
def test_a_sandbox_is_made_listed_described_and_killed(server: LocalServer, runtime: str) -> None:
    made = server.run("sandbox", "create", "--timeout", "120", "--runtime", runtime, "--metadata", "by=cli", "--json")
    assert made.returncode == 0, made.stderr
    sandbox_id = json.loads(made.stdout)["sandboxID"]
    assert sandbox_id in server.run("sandbox", "list").stdout
    details = json.loads(server.run("sandbox", "info", sandbox_id, "--json").stdout)
    assert (details["metadata"], details["runtime"]) == ({"by": "cli"}, runtime)
    assert server.run("sandbox", "kill", sandbox_id).returncode == 0
    again = server.run("sandbox", "kill", sandbox_id)
    assert again.returncode == 1
    assert sandbox_id in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.covers("P01", "P05")
def test_exec_passes_output_input_and_exit_code(box: Sandbox, server: LocalServer) -> None:
    said = server.run("sandbox", "exec", box.sandbox_id, "--", "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (said.stdout, said.stderr, said.returncode) == ("out\n", "err\n", 5)
    fed = server.run("sandbox", "exec", box.sandbox_id, "--", "tr", "a-z", "A-Z", stdin="shout\n")
    assert (fed.stdout, fed.returncode) == ("SHOUT\n", 0)


@pytest.mark.covers("T01", "T02")
def test_shell_is_a_real_terminal(box: Sandbox, server: LocalServer) -> None:
    master, slave = pty.openpty()
    command = [str(warren_command()), "sandbox", "shell", box.sandbox_id]
    environment = {**os.environ, **server.settings, **server.environment, "TERM": "xterm-256color"}
    shell = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True)
    os.close(slave)
    try:
        read_until(master, b"$ ")
        os.write(master, b'tty && echo "in"side; exit 3\n')
        shown = read_until(master, b"inside")
        assert b"/dev/pts/" in shown
        assert shell.wait(30) == 3
    finally:
        shell.kill()
        shell.wait()
        os.close(master)


@pytest.mark.covers("C02")
def test_env_tells_everything_a_client_needs(server: LocalServer) -> None:
    said = server.run("env")
    assert said.returncode == 0, said.stderr
    script = f"{said.stdout}\nenv"
    shell = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}
    )
    variables = dict(line.split("=", 1) for line in shell.stdout.splitlines() if "=" in line)
    assert variables["E2B_API_URL"] == server.api_url
    assert variables["E2B_SANDBOX_URL"] == server.gateway_url
    assert variables["E2B_DOMAIN"] == server.domain
    assert Sandbox.list(api_key=variables["E2B_API_KEY"]).next_items() is not None
    assert os.path.exists(variables["SSL_CERT_FILE"])


@pytest.mark.covers("S01")
def test_templates_are_listed(server: LocalServer) -> None:
    assert "base" in server.run("template", "list").stdout
    listed = json.loads(server.run("template", "list", "--json").stdout)
    assert any("base" in row["names"] for row in (listed if isinstance(listed, list) else listed["templates"]))


def test_mistakes_are_answered_with_one_line_and_a_usage_code(server: LocalServer) -> None:
    assert server.run("sandbox", "no-such-command").returncode == 2
    unknown = server.run("sandbox", "info", "i" + "0" * 20)
    assert unknown.returncode == 1
    assert "Traceback" not in unknown.stderr
    nobody = server.run("sandbox", "list", environment={"E2B_API_URL": "http://127.0.0.1:9"})
    assert nobody.returncode == 1
    assert "Traceback" not in nobody.stderr
    assert len(nobody.stderr.strip().splitlines()) <= 3
