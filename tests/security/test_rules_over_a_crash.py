"""Forbidden traffic never passes while the server is killed and comes back, however hard a sandbox tries."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2b import Sandbox

from tests.e2e.cleanliness import nothing_left
from tests.e2e.internet import Internet
from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.alone, pytest.mark.timeout(300)]

CRASHES = 3
PATIENCE_S = 60
COUNT = "/tmp/count"
KNOCK = f"""
import socket, sys
count = 0
while True:
    for address in sys.argv[1:]:
        knock = socket.socket()
        knock.setblocking(False)  # a SYN goes out, and nobody waits for what becomes of it
        knock.connect_ex((address, 80))
        knock.close()
        with socket.socket() as patient:
            patient.settimeout(0.005)
            patient.connect_ex((address, 80))
    count += 1
    open("{COUNT}", "w").write(str(count))
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalServer]:
    local = LocalServer(tmp_path, pool_slots=1)
    with nothing_left(local), local:
        yield local


@pytest.mark.threat("B5")
def test_no_forbidden_packet_passes_while_the_server_is_killed_and_comes_back(
    runtime: str, internet: Internet, own: LocalServer
) -> None:
    doors = (internet.servers[0], *internet.traps)
    before = len(internet.visits())
    headers = {"X-Warren-Runtime": runtime}
    with Sandbox.create(timeout=300, allow_internet_access=False, api_headers=headers, **own.options) as sandbox:
        sandbox.files.write("/tmp/knock.py", KNOCK)
        sandbox.commands.run(f"python3 /tmp/knock.py {' '.join(doors)}", background=True, timeout=0).disconnect()

        def knocks() -> int:
            return int(sandbox.files.read(COUNT) or 0) if sandbox.files.exists(COUNT) else 0

        for _ in range(CRASHES):
            count = until(knocks, PATIENCE_S, "it tries to get out")
            own.kill()
            own.start()
            until(lambda count=count: knocks() > count, PATIENCE_S, "it goes on trying")
        assert len(internet.visits()) == before
        sandbox.update_network({})
        until(lambda: len(internet.visits()) > before, PATIENCE_S, "it does try, and at the right door")
        assert not [visit for visit in internet.visits()[before:] if visit[0] in internet.traps]
