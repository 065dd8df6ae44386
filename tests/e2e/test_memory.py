"""A hog loses its process, not its sandbox."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from e2b import CommandExitException, CommandHandle, Sandbox

from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until

LOG_S = 30
HOG = "x = bytearray()\nwhile True: x += b'x' * (16 << 20)"
TOUCHER = "import mmap\nm = mmap.mmap(-1, 8 << 30)\nfor at in range(0, 8 << 30, 4096): m[at] = 1"
CROWD = f"""
import os, sys
def hog():
    {HOG.replace(chr(10), chr(10) + "    ")}
for _ in range(8): os.fork() or hog()
for _ in range(8): os.wait()
sys.exit(1)
"""


@pytest.fixture(scope="module")
def box(on_runtime: dict[str, Any]) -> Iterator[Sandbox]:
    with Sandbox.create(timeout=600, **on_runtime) as sandbox:
        for name, program in (("hog", HOG), ("toucher", TOUCHER), ("crowd", CROWD)):
            sandbox.files.write(f"/home/user/{name}.py", program)
        yield sandbox


@pytest.fixture
def bystander(box: Sandbox) -> Iterator[CommandHandle]:
    """A command of the same sandbox that does no harm and must come to none."""
    handle = box.commands.run("sleep 600", background=True, timeout=0)
    yield handle
    assert handle.pid in [process.pid for process in box.commands.list()]
    assert box.commands.run("echo fine").stdout == "fine\n"
    handle.kill()


def ended(box: Sandbox, command: str, user: str = "user") -> CommandExitException:
    with pytest.raises(CommandExitException) as caught:
        box.commands.run(command, user=user, timeout=90)
    return caught.value


@pytest.mark.threat("C1")
@pytest.mark.parametrize(
    ("command", "user"),
    [
        ("exec python3 ~user/hog.py", "user"),
        ("exec python3 ~user/hog.py", "root"),
        ("exec python3 ~user/toucher.py", "user"),
        ("python3 ~user/toucher.py; exit $?", "user"),
    ],
)
@pytest.mark.usefixtures("bystander")
def test_a_hog_is_ended_and_says_why(box: Sandbox, command: str, user: str) -> None:
    assert "out of memory" in (ended(box, command, user).error or "")


@pytest.mark.threat("C1")
@pytest.mark.usefixtures("bystander")
def test_hogs_that_come_in_a_crowd_are_ended(box: Sandbox) -> None:
    ended(box, "exec python3 ~user/crowd.py")


def test_the_log_and_the_meters_tell_of_it(box: Sandbox, server: LocalServer, runtime: str) -> None:
    def logged() -> bool:
        rows = httpx.get(
            f"{server.api_url}/v2/sandboxes/{box.sandbox_id}/logs",
            params={"search": "out of memory"},
            headers={"X-API-KEY": server.environment["E2B_API_KEY"]},
        ).json()["logs"]
        return any("1024 MiB (memory)" in row["message"] for row in rows)

    until(logged, LOG_S, "a line in the log of the sandbox")
    metrics = httpx.get(f"{server.api_url}/metrics").text
    counted = [line for line in metrics.splitlines() if line.startswith("warren_out_of_memory_total")]
    assert any(f'runtime="{runtime}"' in line and not line.endswith(" 0.0") for line in counted)


@pytest.mark.threat("C4")
def test_memory_file_systems_have_a_size(box: Sandbox) -> None:
    filled = box.commands.run("dd if=/dev/zero of=/dev/shm/full bs=1M count=4096; rm /dev/shm/full", timeout=60)
    assert "No space left" in filled.stderr
    assert box.commands.run("echo fine").stdout == "fine\n"
