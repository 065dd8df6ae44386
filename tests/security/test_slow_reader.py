"""Output that nobody reads holds up who writes it, and fills no memory on the way."""

import os
import time

import pytest
from e2b import Sandbox

from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until
from tests.memory_of import forget_peak, peak, resident

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

MIB = 1 << 20
OUTPUT_MIB = 1024 if os.environ.get("WARREN_ATTACK_WHOLE") else 200
ON_THE_WAY_MIB = 48
"""What may be written before the writer stands still: pipes and sockets between it and the client, all together."""
ROOM = 32 * MIB
"""Bytes by which the server may grow meanwhile."""
STILL_S = 1.0
WAIT_S = 60
WRITER = f"""
import os
for written in range(1, {OUTPUT_MIB} + 1):
    data = memoryview(bytes({MIB}))
    while data: data = data[os.write(1, data):]
    open("/tmp/written", "w").write(str(written))
"""


def written(sandbox: Sandbox) -> int:
    return int(sandbox.files.read("/tmp/written") or 0) if sandbox.files.exists("/tmp/written") else 0


def standstill(sandbox: Sandbox) -> int:
    """MiB written once nothing has been added for a while."""
    seen, since = written(sandbox), time.monotonic()

    def stands() -> bool:
        nonlocal seen, since
        if (now := written(sandbox)) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > STILL_S

    until(stands, WAIT_S, "the writer stands still")
    return seen


@pytest.mark.threat("C6")
def test_a_reader_that_does_not_read_holds_up_the_writer_and_costs_no_memory(server: LocalServer, runtime: str) -> None:
    headers = {"X-Warren-Runtime": runtime}
    with Sandbox.create(timeout=900, api_headers=headers, **server.options) as sandbox:
        sandbox.files.write("/tmp/writer.py", WRITER)
        forget_peak(server.pid)
        before = resident(server.pid)
        output = iter(sandbox.commands.run("exec python3 /tmp/writer.py", background=True, timeout=0))
        first = len(next(output)[0] or "")
        assert standstill(sandbox) < ON_THE_WAY_MIB
        grown_at_rest = resident(server.pid) - before
        size = first + sum(len(stdout or "") for stdout, _, _ in output)
        assert size == OUTPUT_MIB * MIB
        grown = peak(server.pid) - before
        print(f"{OUTPUT_MIB} MiB under {runtime}: the server grew by {grown_at_rest >> 10}, at most {grown >> 10} KiB")
        assert max(grown, grown_at_rest) < ROOM
