"""What the kernel has few of for a whole machine: a sandbox that takes all it can get leaves the others theirs."""

import array
import ctypes
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2b import PtySize, Sandbox, SandboxException

from tests.e2e.local_server import LocalServer
from warren.engine.oci.uids import UID_BASE
from warren.model.limits import MAX_TERMINALS

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

NS_GET_OWNER_UID = 0xB704
SIZE = PtySize(rows=24, cols=80)
TAKE_ALL = """
import ctypes, os, sys, time
libc, taken = ctypes.CDLL(None), 0
def take():
    return libc.inotify_init1(0) if sys.argv[1] == "inotify" else os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
try:
    while taken < 2000 and take() >= 0: taken += 1
except OSError: pass
print(taken, flush=True)
time.sleep(600)
"""


@pytest.fixture
def pair(server: LocalServer, runtime: str) -> Iterator[tuple[Sandbox, Sandbox]]:
    options = {"timeout": 300, "api_headers": {"X-Warren-Runtime": runtime}, **server.options}
    with Sandbox.create(**options) as greedy, Sandbox.create(**options) as other:
        greedy.files.write("/tmp/take.py", TAKE_ALL)
        yield greedy, other


def take_all(sandbox: Sandbox, what: str) -> int:
    """As often as some of it is left; how many there were."""
    total = 0
    while True:
        taking = sandbox.commands.run(f"exec python3 /tmp/take.py {what}", user="root", background=True, timeout=0)
        taken = int(next(output for output, _, _ in taking if output) or 0)
        if taken == 0 or total >= 2000:
            return total
        total += taken


@pytest.mark.threat("C8")
def test_inotify_of_others_is_left(pair: tuple[Sandbox, Sandbox], runtime: str) -> None:
    greedy, other = pair
    assert take_all(greedy, "inotify") > 0
    own = ctypes.CDLL(None).inotify_init1(0)
    assert own >= 0, "the host has none left"
    os.close(own)
    other.files.watch_dir("/tmp").stop()
    if runtime == "crun":  # gVisor gives as many as it has memory for
        with pytest.raises(SandboxException, match="inotify"):
            greedy.files.watch_dir("/tmp")
    assert greedy.commands.run("echo fine").stdout == "fine\n"


@pytest.mark.threat("C8")
def test_terminals_of_others_are_left(pair: tuple[Sandbox, Sandbox], runtime: str) -> None:
    greedy, other = pair
    taken = take_all(greedy, "terminals")
    assert taken > 0
    other.pty.kill(other.pty.create(size=SIZE).pid)
    if runtime == "crun":
        assert taken <= MAX_TERMINALS
        with pytest.raises(SandboxException, match="PTYs"):
            greedy.pty.create(size=SIZE)
    assert greedy.commands.run("echo fine").stdout == "fine\n"


@pytest.mark.threat("C8", runtime="crun")
def test_a_user_namespace_belongs_to_a_host_uid_of_its_own(
    server: LocalServer, pair: tuple[Sandbox, Sandbox], runtime: str
) -> None:
    if runtime != "crun":
        pytest.skip("gVisor counts by itself")
    owners = {owner_of_user_namespace(int(str(server.placement(box.sandbox_id)["pid"]))) for box in pair}
    assert len(owners) == 2
    assert min(owners) >= UID_BASE


def owner_of_user_namespace(pid: int) -> int:
    with Path(f"/proc/{pid}/ns/user").open() as namespace:
        owner = array.array("I", [0])
        fcntl.ioctl(namespace, NS_GET_OWNER_UID, owner)
    return owner[0]
