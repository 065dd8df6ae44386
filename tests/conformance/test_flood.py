"""Contract 6.2.2 and the threat table: output without end, readers that do not read, in bounded memory."""

from __future__ import annotations

import http.client
import socket
import time
from typing import TYPE_CHECKING

import pytest
from e2b.envd.process import process_pb

from .processes import alive, eventually
from .wire import Wire, command, envelope, shell

pytestmark = pytest.mark.threat("C6")

if TYPE_CHECKING:
    from pathlib import Path

    from e2b import Sandbox

    from .daemon import Daemon

START = "process.Process/Start"
CONNECT = "process.Process/Connect"
GIB = 1 << 30
ROOM = 48 << 20  # bytes that guestd may grow to under any flood
SETTLED = 0.3  # seconds without progress after which a writer counts as held up


def written_by(pid: int) -> int:
    with open(f"/proc/{pid}/io") as counters:
        return next(int(line.split()[1]) for line in counters if line.startswith("wchar"))


def settled(pid: int) -> int:
    """What a process has written once it stopped making progress."""
    seen, since = written_by(pid), time.monotonic()

    def stopped() -> bool:
        nonlocal seen, since
        if (now := written_by(pid)) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > SETTLED

    eventually(stopped, "the writer is held up", 20)
    return seen


class SlowReader:
    """Opens a stream and then reads nothing, with as little room in the socket as the kernel allows."""

    def __init__(self, daemon: Daemon, method: str, body: dict[str, object]) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20)
        self.connection.sock = socket.socket()
        self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.connection.sock.connect(("127.0.0.1", daemon.port))
        headers = Wire(daemon).headers({"Content-Type": "application/connect+json"})
        self.connection.request("POST", f"/{method}", body=envelope(body), headers=headers)

    def close(self) -> None:
        self.connection.close()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_gibibyte_of_output_passes_in_bounded_memory(guest: Daemon, wire: Wire) -> None:
    guest.reset_peak()
    config = process_pb.ProcessConfig(cmd="/bin/sh", args=["-c", f"exec head -c {GIB} /dev/zero"])
    request = process_pb.StartRequest(process=config, stdin=False).to_binary()
    size = 0
    with wire.stream(START, request, codec="proto") as arriving:
        for frame in arriving:
            size += len(frame.payload)
    assert GIB < size < GIB + GIB // 100
    assert guest.growth() < ROOM


@pytest.mark.timeout(120)
def test_output_through_the_client_is_whole(sandbox: Sandbox) -> None:
    size = 0

    def count(text: str) -> None:
        nonlocal size
        size += len(text)

    sandbox.commands.run(f"head -c {64 << 20} /dev/zero", on_stdout=count, retain_output=False)
    assert size == 64 << 20


def test_a_slow_reader_holds_up_the_process_and_not_the_daemon(guest: Daemon, wire: Wire) -> None:
    guest.reset_peak()
    slow = SlowReader(guest, START, shell(f"exec head -c {GIB} /dev/zero", tag="slow"))
    pid = eventually(lambda: tagged(wire, "slow"), "the flood runs")
    assert settled(pid) < ROOM
    assert alive(pid)
    assert guest.growth() < ROOM
    assert wire.run(command("/bin/echo", "hi", stdin=False)).stdout == b"hi\n"
    wire.ok("process.Process/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
    eventually(lambda: not alive(pid), "a kill reaches a held-up process")
    slow.close()


def test_a_slow_reader_that_leaves_sets_the_process_free(guest: Daemon, wire: Wire, folder: Path) -> None:
    line = f"head -c {200 << 20} /dev/zero; echo ok > {folder}/done"
    slow = SlowReader(guest, START, shell(line, tag="leaver"))
    pid = eventually(lambda: tagged(wire, "leaver"), "the flood runs")
    eventually(lambda: wire.ok("process.Process/List", {}), "guestd answers meanwhile")
    slow.close()
    eventually(lambda: (folder / "done").exists(), "the process went on to its end", 30)
    eventually(lambda: not alive(pid), "and ended")


def test_a_deadline_reaches_a_process_behind_a_slow_reader(guest: Daemon, wire: Wire) -> None:
    with wire.stream(START, shell("exec cat /dev/zero", tag="held"), Connect_Timeout_Ms="1500") as arriving:
        pid = next(arriving).event["start"]["pid"]
        eventually(lambda: not alive(pid), "the deadline killed it though nobody reads")


def test_a_process_behind_a_slow_reader_holds_up_no_other_stream(guest: Daemon, wire: Wire) -> None:
    slow = SlowReader(guest, START, shell("exec cat /dev/zero", tag="blocked"))
    pid = eventually(lambda: tagged(wire, "blocked"), "the flood runs")
    assert len(wire.run(shell("head -c 20000000 /dev/zero")).stdout) == 20_000_000
    slow.close()
    wire.ok("process.Process/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})


def test_a_flooded_terminal_stays_bounded(guest: Daemon, wire: Wire) -> None:
    guest.reset_peak()
    size = {"size": {"cols": 80, "rows": 24}}
    slow = SlowReader(guest, START, command("/bin/sh", "-c", "exec cat /dev/zero", pty=size, tag="terminal"))
    pid = eventually(lambda: tagged(wire, "terminal"), "the flood runs")
    settled(pid)
    assert guest.growth() < ROOM
    wire.ok("process.Process/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
    eventually(lambda: not alive(pid), "a kill reaches it")
    slow.close()


def test_a_hundred_streams_that_are_left_leave_nothing_behind(guest: Daemon, wire: Wire) -> None:
    wire.run(shell("true"))
    before = guest.descriptors()
    for _ in range(100):
        with wire.stream(START, shell("exec sleep 600")) as arriving:
            pid = next(arriving).event["start"]["pid"]
        wire.ok("process.Process/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
    eventually(lambda: guest.descriptors() <= before + 4, "pipes and connections are closed")


@pytest.mark.timeout(120)
def test_three_hundred_processes_at_once_are_no_trouble(guest: Daemon, wire: Wire) -> None:
    guest.reset_peak()
    pids: list[int] = []
    for _ in range(300):
        with wire.stream(START, shell("exec sleep 600")) as arriving:
            pids.append(next(arriving).event["start"]["pid"])
    listed = {process["pid"] for process in wire.ok("process.Process/List", {})["processes"]}
    assert set(pids) <= listed
    for pid in pids:
        wire.ok("process.Process/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
    eventually(lambda: not any(alive(pid) for pid in pids), "all are dead")
    assert guest.growth() < 2 * ROOM


def tagged(wire: Wire, tag: str) -> int:
    found = wire.ok("process.Process/List", {}).get("processes", [])
    return next((process["pid"] for process in found if process.get("tag") == tag), 0)
