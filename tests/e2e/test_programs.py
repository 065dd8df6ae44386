"""What the README shows works: the demo and the examples, as a newcomer runs them."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from e2b import Sandbox

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer

ROOT = Path(__file__).parent.parent.parent
CLIENT_ABORTS_AT_EXIT = -signal.SIGABRT
"""About one run in fifteen of a program that uses the async client ends so, after all its work is done: a thread of the
client's native transport asks for the interpreter while that is being taken down (e2b 2.63.0, Python 3.11)."""
STEPS = (
    "create a sandbox under gVisor",
    "write a file",
    "stream output",
    "open a terminal",
    "upload 10 MB",
    "public URL",
    "set a timeout",
    "start a Python interpreter that counts",
    "pause it",
    "resume it",
    "fork it in three",
    "list",
    "kill",
)


def run(program: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("E2B_", "WARREN_", "SSL_"))}
    return subprocess.run(
        [sys.executable, ROOT / program],
        env={**outer, **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.covers("S01", "P01", "T01", "F01", "S21", "S08", "S12", "S09", "S15", "S19")
def test_the_demo_starts_a_server_of_its_own_and_stops_it(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    idle = LocalServer(tmp_path)
    with nothing_left(idle):
        shown = run("scripts/demo.py", idle.settings)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert all(step in shown.stdout for step in STEPS)
    for fact in ("started a server", "Starting gVisor", "size=40x132", "same digest", "-> 200", "running: False"):
        assert fact in shown.stdout
    counts_on_in_every_copy(shown.stdout)


def counts_on_in_every_copy(shown: str) -> None:
    """From the number at the fork, each with a name and an address of its own; after the pause without a gap."""
    last, now = found(r"it slept [\d.]+ s after (\d+), is at (\d+)", shown)[0]
    at_the_fork = int(found(r"it had come to (\d+) at the fork", shown)[0])
    family = found(r"(i\w{19,}) ([\d.]+) went on with (\d+), is at (\d+)", shown)
    assert len(family) == 4, shown
    assert int(last) < int(now) <= at_the_fork
    assert {int(first) for _, _, first, _ in family} == {at_the_fork + 1}
    assert all(int(reached) > at_the_fork for *_, reached in family)
    assert len({name for name, *_ in family}) == len({address for _, address, *_ in family}) == len(family)


def found(pattern: str, shown: str) -> list[Any]:
    return re.findall(pattern, shown)


def test_the_demo_uses_a_server_that_runs_and_leaves_it_alone(server: LocalServer) -> None:
    shown = run("scripts/demo.py", server.settings)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "using the server that runs" in shown.stdout
    assert Sandbox.list().next_items() is not None


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("first_steps", "1,2,3"),
        ("untrusted_code", "endless  stopped after 5 s"),
        ("many_at_once", "9 ** 20 = 12157665459056928801"),
    ],
)
def test_the_examples_say_what_they_should(program: str, said: str, server: LocalServer) -> None:
    shown = run(f"examples/{program}.py", server.environment)
    assert said in shown.stdout
    assert shown.returncode in (0, CLIENT_ABORTS_AT_EXIT), shown.stderr


def test_the_web_server_example_leaves_an_address_that_answers(server: LocalServer) -> None:
    shown = run("examples/web_server.py", server.environment)
    assert shown.returncode == 0, shown.stderr
    assert server.domain in shown.stdout
    assert Sandbox.kill(shown.stdout.split()[-1])
