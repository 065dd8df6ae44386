"""What only the first process of a pid namespace has to do, and what it must survive."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from .daemon import BINARY, Daemon
from .processes import alive, children_of, eventually
from .wire import Wire, command, shell

if TYPE_CHECKING:
    from collections.abc import Iterator

BINARY_BYTES = 12 << 20
IDLE_BYTES = 8 << 20
MOST = 60  # processes of the user
SLACK = 2  # the kernel looks before it counts the new one
ENDING = 0.2  # seconds in which a daemon that was told to end would have
RESTED_BYTES = 12 << 20
OCTETS = "application/octet-stream"
MILD = "INT HUP USR1 USR2 PIPE QUIT ALRM TSTP TTIN TTOU CHLD CONT URG WINCH XCPU XFSZ VTALRM PROF"
OTHER_SIGNALS = f"{MILD} ABRT ILL TRAP BUS FPE SEGV SYS STKFLT POLL PWR RTMIN STOP KILL".split()


@pytest.fixture
def first(nothing_left_behind: None) -> Iterator[Daemon]:
    with Daemon.start(as_init=True) as daemon:
        yield daemon


@pytest.fixture
def first_wire(first: Daemon) -> Wire:
    return Wire(first)


def test_it_is_the_first(first_wire: Wire) -> None:
    assert first_wire.run(shell("echo $PPID")).stdout == b"1\n"


def test_orphans_are_reaped(first: Daemon, first_wire: Wire) -> None:
    first_wire.run(shell("for i in 1 2 3 4 5; do (setsid sh -c 'sleep 0.2' >/dev/null 2>&1 &) ; done"))
    eventually(lambda: children_of(first.pid, zombies=True) == [], "no zombie is left")


def test_exit_codes_are_right_while_orphans_are_reaped(first_wire: Wire) -> None:
    for code in range(20):
        run = first_wire.run(shell(f"(true &) ; (false &) ; exit {code}"))
        assert (run.end or {}).get("exitCode", 0) == code


def test_missing_programs_are_told_apart_while_orphans_are_reaped(first_wire: Wire) -> None:
    for _ in range(20):
        assert (first_wire.run({"process": {"cmd": "/none"}, "stdin": False}).end or {})["exitCode"] == 127


def test_a_user_has_no_more_processes_than_allowed(nothing_left_behind: None) -> None:
    """A bounded stand-in for a fork bomb, which would hit this machine if the limit did not hold."""
    with Daemon.start("-max-processes", str(MOST), as_init=True) as daemon:
        wire = Wire(daemon)
        pids, refusal = fill(wire)
        assert refusal["code"] == "resource_exhausted"
        assert wire.run(shell("(true); echo $?"), user="user").stdout != b"0\n"
        assert wire.run(shell("echo well")).stdout == b"well\n"
        for pid in pids:
            wire.ok("process.Process/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
        eventually(lambda: wire.run(shell("echo back"), user="user").stdout == b"back\n", "the user can start again")


def fill(wire: Wire) -> tuple[list[int], dict[str, Any]]:
    """Start processes of the user until one is refused."""
    pids: list[int] = []
    while len(pids) <= MOST + SLACK:
        with wire.stream("process.Process/Start", shell("exec sleep 600"), user="user") as arriving:
            frame = next(arriving)
            if frame.ends:
                return pids, frame.json["error"]
            pids.append(frame.event["start"]["pid"])
    raise AssertionError(f"{len(pids)} processes were started with a limit of {MOST}")


def test_term_ends_it_and_everything_below(nothing_left_behind: None) -> None:
    daemon = Daemon.start(as_init=True)
    wire = Wire(daemon)
    with wire.stream("process.Process/Start", shell("trap '' TERM; while :; do sleep 0.1; done")) as arriving:
        next(arriving)
        below = children_of(daemon.pid)
        began = time.monotonic()
        daemon.stop()
        assert time.monotonic() - began < 9
    assert below
    eventually(lambda: not any(alive(pid) for pid in below), "nothing below lives")


def test_it_survives_kill_all_by_a_user(first: Daemon, first_wire: Wire) -> None:
    first_wire.run(shell("kill -9 -1; true"), user="user")
    assert first.running
    assert first_wire.http.get("/health").status_code == 204


@pytest.mark.parametrize("name", OTHER_SIGNALS)
def test_it_survives_signals_from_its_own_children(first: Daemon, first_wire: Wire, name: str) -> None:
    first_wire.run(command("/bin/bash", "-c", f"kill -{name} 1", stdin=False))
    with pytest.raises(subprocess.TimeoutExpired):
        first.process.wait(ENDING)  # type: ignore[union-attr]
    assert first_wire.http.get("/health").status_code == 204


def test_a_fork_storm_that_ends_leaves_it_well(first: Daemon, first_wire: Wire) -> None:
    storm = "i=0; while [ $i -lt 500 ]; do (exec sleep 0.3 &) ; i=$((i+1)); done"
    first_wire.run(shell(storm), user="user")
    eventually(lambda: children_of(first.pid, zombies=True) == [], "all were reaped", 20)
    assert first_wire.run(shell("echo well")).stdout == b"well\n"


def test_interrupt_ends_it_with_success(nothing_left_behind: None) -> None:
    daemon = Daemon.start()
    os.kill(daemon.pid, signal.SIGTERM)
    assert daemon.stop() in (0, -signal.SIGTERM, 128 + signal.SIGTERM)


def test_binary_is_small() -> None:
    assert BINARY.stat().st_size <= BINARY_BYTES


def test_version_names_the_daemon_and_the_wire() -> None:
    said = subprocess.run([BINARY, "-version"], capture_output=True, text=True, timeout=5, check=True).stdout
    assert "0.6.13" in said


def test_idle_memory_is_small(nothing_left_behind: None) -> None:
    with Daemon.start() as daemon:
        eventually(lambda: daemon.memory("VmRSS") <= IDLE_BYTES, "the idle daemon is small")


def test_memory_of_a_busy_daemon_is_given_back(nothing_left_behind: None) -> None:
    with Daemon.start() as daemon:
        wire = Wire(daemon)
        wire.run(shell("head -c 100000000 /dev/zero"))
        wire.files("POST", params={"path": "big"}, content=bytes(64 << 20), headers={"Content-Type": OCTETS})
        wire.files("GET", params={"path": "big"})
        wire.http.close()
        eventually(lambda: daemon.memory("VmRSS") <= RESTED_BYTES, "it is small again", 20)
