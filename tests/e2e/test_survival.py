"""The server may come and go: sandboxes live on, and their deadlines hold."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from e2b import Sandbox, SandboxException, SandboxNotFoundException, SandboxQuery, TimeoutException

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until
from warren.settings import load

BOOT_ID = "/proc/sys/kernel/random/boot_id"


@pytest.fixture(scope="module")
def own(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server for these tests alone, with the runtime under test as its default."""
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    local = LocalServer(tmp_path_factory.mktemp("own"), runtime=runtime, pool_slots=2)
    with nothing_left(local), local:
        yield local
        for info in Sandbox.list(**local.options).next_items():
            Sandbox.kill(info.sandbox_id, **local.options)


def process_of(server: LocalServer, sandbox: Sandbox) -> int:
    pid = server.placement(sandbox.sandbox_id)["pid"]
    assert isinstance(pid, int)
    return pid


def lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ids(server: LocalServer) -> set[str]:
    return {info.sandbox_id for info in Sandbox.list(**server.options).next_items()}


@pytest.mark.covers("S15")
def test_what_runs_and_what_sleeps_outlives_an_upgrade_of_the_server(runtime: str, tmp_path: Path) -> None:
    before, after = tmp_path / "guestd", tmp_path / "guestd-new"
    shutil.copy(load(os.environ).guestd, before)
    after.write_bytes(before.read_bytes() + b"\0")  # another build, as far as anyone can tell
    for guestd in (before, after):
        guestd.chmod(0o755)
    local = LocalServer(tmp_path, runtime=runtime, pool_slots=2, guestd_path=str(before))
    with nothing_left(local), local:
        up, asleep = (Sandbox.create(timeout=300, **local.options) for _ in range(2))
        for sandbox in (up, asleep):
            sandbox.files.write("/home/user/kept", "yes")
        asleep.pause(mode="full" if runtime == "runsc" else "filesystem")
        local.stop()
        before.unlink()
        local.settings["WARREN_GUESTD_PATH"] = str(after)
        local.start()
        for sandbox in (up, asleep):
            back = sandbox.connect()
            assert back.commands.run("cat kept").stdout == "yes"
            assert back.kill() is True
        with Sandbox.create(timeout=300, **local.options) as fresh:
            assert fresh.commands.run("echo new").stdout == "new\n"


@pytest.mark.covers("S07", "S10")
@pytest.mark.parametrize("end", ["kill", "stop"])
@pytest.mark.threat("E1")
def test_sandboxes_outlive_the_server_and_are_adopted(own: LocalServer, end: str) -> None:
    sandbox = Sandbox.create(timeout=300, metadata={"kept": "yes"}, **own.options)
    counter = sandbox.commands.run("while sleep 0.2; do echo tick >> /tmp/ticks; done", background=True, timeout=0)
    counter.disconnect()
    boot_id, before, pid = sandbox.files.read(BOOT_ID), sandbox.get_info(), process_of(own, sandbox)
    getattr(own, end)()
    assert lives(pid)
    own.start()
    assert sandbox.files.read(BOOT_ID) == boot_id
    assert counter.pid in {process.pid for process in sandbox.commands.list()}
    ticks = len(sandbox.files.read("/tmp/ticks"))
    until(lambda: len(sandbox.files.read("/tmp/ticks")) > ticks, 20, "the process inside goes on")
    after = sandbox.get_info()
    assert (after.started_at, after.end_at, after.metadata) == (before.started_at, before.end_at, before.metadata)
    sandbox.set_timeout(200)
    assert sandbox.kill() is True
    assert not sandbox.is_running()
    until(lambda: not lives(pid), 10, "the runtime's process is gone")


@pytest.mark.covers("S02", "S08")
def test_a_deadline_that_passed_meanwhile_is_enforced_at_start(own: LocalServer) -> None:
    sandbox = Sandbox.create(timeout=2, **own.options)
    end_at, pid = sandbox.get_info().end_at, process_of(own, sandbox)
    own.kill()
    until(lambda: datetime.now(UTC) > end_at, 20, "the deadline has passed")
    assert lives(pid), "nobody was there to end it"
    own.start()
    until(lambda: not lives(pid), 20, "it is ended")
    assert sandbox.sandbox_id not in ids(own)


@pytest.mark.covers("S02", "S08")
@pytest.mark.threat("E1")
def test_a_deadline_in_the_future_still_holds_after_a_crash(own: LocalServer) -> None:
    sandbox = Sandbox.create(timeout=300, **own.options)
    sandbox.set_timeout(6)
    end_at = sandbox.get_info().end_at
    own.kill()
    own.start()
    until(lambda: not sandbox.is_running(), 40, "it is ended at its deadline")
    assert datetime.now(UTC) >= end_at


def test_a_sandbox_that_died_meanwhile_is_not_there_any_more(own: LocalServer) -> None:
    sandbox = Sandbox.create(timeout=300, **own.options)
    pid = process_of(own, sandbox)
    own.kill()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not lives(pid), 20, "it is dead")
    own.start()
    assert sandbox.sandbox_id not in ids(own)
    with pytest.raises(SandboxNotFoundException):
        sandbox.get_info()


@pytest.mark.covers("P10")
@pytest.mark.threat("E3")
def test_the_death_of_a_sandbox_is_noticed_and_cuts_its_streams(own: LocalServer) -> None:
    sandbox = Sandbox.create(timeout=300, **own.options)
    handle = sandbox.commands.run("sleep 600", background=True, timeout=0)
    os.kill(process_of(own, sandbox), signal.SIGKILL)
    with pytest.raises(TimeoutException, match="was killed or reached its end of life"):
        handle.wait()
    until(lambda: not sandbox.is_running(), 10, "it counts as dead")
    until(lambda: sandbox.sandbox_id not in ids(own), 10, "it is not listed")


@pytest.mark.covers("P10")
def test_a_sandbox_that_ends_its_own_daemon_is_gone(own: LocalServer) -> None:
    sandbox = Sandbox.create(timeout=300, **own.options)
    with suppress(SandboxException):
        sandbox.commands.run("sudo kill -TERM 1; sleep 60", timeout=30)
    until(lambda: not sandbox.is_running(), 20, "it counts as dead")
    until(lambda: sandbox.sandbox_id not in ids(own), 20, "it is not listed")


@pytest.mark.covers("S05")
def test_idempotency_keys_outlive_the_server(own: LocalServer) -> None:
    key = f"k-{time.time_ns()}"
    first = Sandbox.create(timeout=120, idempotency_key=key, **own.options)
    own.kill()
    own.start()
    again = Sandbox.create(timeout=120, idempotency_key=key, **own.options)
    assert again.sandbox_id == first.sandbox_id
    assert first.kill()


@pytest.mark.threat("E1")
def test_a_crash_during_create_leaves_nothing_half_made(own: LocalServer) -> None:
    mark = str(time.time_ns())

    def create() -> None:
        with suppress(Exception):
            Sandbox.create(timeout=120, metadata={"mark": mark}, retries=0, request_timeout=20, **own.options)

    clients = [threading.Thread(target=create) for _ in range(4)]
    for client in clients:
        client.start()
    time.sleep(0.1)
    own.kill()
    own.start()
    for client in clients:
        client.join(60)
    query = SandboxQuery(metadata={"mark": mark})
    for info in Sandbox.list(query=query, **own.options).next_items():
        assert Sandbox.connect(info.sandbox_id, **own.options).commands.run("echo whole").stdout == "whole\n"
        Sandbox.kill(info.sandbox_id, **own.options)
    assert Sandbox.list(query=query, **own.options).next_items() == []


@pytest.mark.threat("E4")
def test_one_state_folder_has_one_server(own: LocalServer) -> None:
    second = LocalServer(own.folder, bridge="wtsecond", network="198.19.255.0/24")
    with pytest.raises(AssertionError, match="the server ended at start"):
        second.start()
    assert ids(own) is not None
