"""What the server makes of a machine that is restarted, a disk that is full, and a stop."""

import os
import sqlite3
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2b import Sandbox, SandboxException, SandboxNotFoundException, SandboxQuery

from tests.e2e import set_clock
from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from tests.e2e.reboot import reboot
from tests.e2e.small_disk import fill, on_a_disk_of_its_own
from tests.e2e.test_faults_guest import messages
from tests.e2e.waiting import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")
BOTH = [{"X-Warren-Runtime": "crun"}, {"X-Warren-Runtime": "runsc"}]
BOOT_ID = "/proc/sys/kernel/random/boot_id"
FOLDER_MB = 160
HOUR_S = 3600


def listed(server: LocalServer, **query: str) -> list[str]:
    wanted = SandboxQuery(metadata=query) if query else None
    return [info.sandbox_id for info in Sandbox.list(query=wanted, **server.options).next_items()]


def kill_all(server: LocalServer) -> None:
    for sandbox_id in listed(server):
        Sandbox.kill(sandbox_id, **server.options)


@pytest.mark.threat("E6")
def test_after_a_restart_of_the_machine_what_ran_has_ended_for_that_reason(tmp_path: Path) -> None:
    server = LocalServer(tmp_path, pool_slots=2)
    with nothing_left(server), server:
        lost = [Sandbox.create(timeout=600, api_headers=on, **server.options) for on in BOTH]
        reboot(server)
        server.start()
        assert listed(server) == []
        for sandbox in lost:
            assert "sandbox ended: machine_restarted" in messages(server, sandbox.sandbox_id)
        for on in BOTH:
            with Sandbox.create(timeout=600, api_headers=on, **server.options) as fresh:
                assert fresh.commands.run("echo new").stdout == "new\n"


@pytest.mark.threat("E6")
def test_what_sleeps_on_disk_outlives_a_restart_of_the_machine_and_what_is_frozen_does_not(tmp_path: Path) -> None:
    server = LocalServer(tmp_path, pool_slots=2)
    with nothing_left(server), server:
        deep, booted, plain, frozen = (at_work(server, on) for on in (BOTH[1], BOTH[1], BOTH[0], BOTH[0]))
        taken = deep.sandbox.create_snapshot().snapshot_id
        for sleeper, mode in ((deep, "full"), (booted, "filesystem"), (plain, "filesystem"), (frozen, "full")):
            sleeper.sandbox.pause(mode=mode)
        reboot(server)
        server.start()
        assert set(listed(server)) == {each.sandbox.sandbox_id for each in (deep, booted, plain)}
        assert "sandbox ended: machine_restarted" in messages(server, frozen.sandbox.sandbox_id)
        with pytest.raises(SandboxNotFoundException):
            frozen.sandbox.connect()
        for sleeper, goes_on in ((deep, True), (booted, False), (plain, False)):
            back = sleeper.sandbox.connect()
            assert back.files.read("/home/user/work") == "done"
            assert (back.files.read(BOOT_ID) == sleeper.boot_id) is goes_on
            assert (sleeper.pid in {process.pid for process in back.commands.list()}) is goes_on
        with Sandbox.create(taken, timeout=600, **server.options) as copy:
            assert copy.files.read(BOOT_ID) == deep.boot_id
            assert deep.pid in {process.pid for process in copy.commands.list()}
        assert Sandbox.delete_snapshot(taken, **server.options) is True
        kill_all(server)


@dataclass(frozen=True, slots=True)
class AtWork:
    sandbox: Sandbox
    pid: int
    boot_id: str


def at_work(server: LocalServer, on: dict[str, str]) -> AtWork:
    sandbox = Sandbox.create(timeout=600, api_headers=on, **server.options)
    sandbox.files.write("/home/user/work", "done")
    pid = sandbox.commands.run("exec sleep 1000", background=True, timeout=0).pid
    return AtWork(sandbox, pid, sandbox.files.read(BOOT_ID))


@pytest.mark.threat("E7")
def test_a_stop_answers_what_is_under_way_and_leaves_the_sandboxes(tmp_path: Path) -> None:
    server = LocalServer(tmp_path, pool_slots=2, runtime="crun", pool_sandboxes=0)  # a spare is there at once
    answered: list[str] = []

    def create() -> None:
        with suppress(Exception):
            sandbox = Sandbox.create(timeout=600, retries=0, metadata={"mark": "drained"}, **server.options)
            answered.append(sandbox.sandbox_id)

    with nothing_left(server), server:
        first = Sandbox.create(timeout=600, **server.options)
        clients = [threading.Thread(target=create) for _ in range(4)]
        for client in clients:
            client.start()
        places = Path("/run/warren", server.bridge, "sandboxes")
        until(lambda: len(list(places.iterdir())) > 1, 30, "the first of them is being made")
        server.stop()
        for client in clients:
            client.join(60)
        server.start()
        assert first.commands.run("echo on").stdout == "on\n"
        there = listed(server, mark="drained")
        assert answered, "what was under way was answered"
        assert set(answered) <= set(there), "and what was answered is there"
        for sandbox_id in there:
            assert Sandbox.connect(sandbox_id, **server.options).commands.run("echo whole").stdout == "whole\n"
        kill_all(server)


class ServerWithClock(LocalServer):
    @property
    def serving(self) -> list[str]:
        return [sys.executable, set_clock.__file__, str(self.ahead)]

    @property
    def ahead(self) -> Path:
        return self.folder / "ahead"

    def set_clock(self, seconds_ahead: int) -> None:
        fresh = self.ahead.with_suffix(".new")
        fresh.write_text(str(seconds_ahead))
        fresh.rename(self.ahead)


@pytest.mark.threat("E5")
def test_a_clock_that_is_set_ends_what_is_due_and_holds_up_nothing(tmp_path: Path) -> None:
    server = ServerWithClock(tmp_path, pool_slots=2, runtime="crun")
    server.set_clock(0)
    with nothing_left(server), server:
        box = Sandbox.create(timeout=600, **server.options)
        server.set_clock(-HOUR_S)
        samples = len(box.get_metrics())
        until(lambda: len(box.get_metrics()) > samples, 60, "what is done every few seconds is still done")
        brief = Sandbox.create(timeout=1, **server.options)
        until(lambda: brief.sandbox_id not in listed(server), 60, "a deadline of now is met now")
        assert box.commands.run("echo on").stdout == "on\n"
        server.set_clock(HOUR_S)
        until(lambda: listed(server) == [], 60, "what is due has ended")
        until(lambda: "sandbox ended: expired" in messages(server, box.sandbox_id), 20, "and its log says why")


@pytest.mark.threat("E5")
def test_a_full_disk_is_told_in_words_loses_nothing_and_passes(tmp_path: Path) -> None:
    server = LocalServer(tmp_path, pool_slots=2, runtime="crun", stop_sandboxes_on_exit="true", disk_overcommit=1000)
    with on_a_disk_of_its_own(server, FOLDER_MB):
        with nothing_left(server), server:
            kept, spare = (Sandbox.create(timeout=600, **server.options) for _ in range(2))
            deep = Sandbox.create(timeout=600, api_headers=BOTH[1], **server.options)
            fill(server.state / "filler")
            with pytest.raises(SandboxException, match=r"(507|503).*cannot"):
                Sandbox.create(timeout=600, **server.options)
            for sandbox in (kept, deep):
                assert sandbox.commands.run("echo on").stdout == "on\n"
            assert spare.kill() is True
            (server.state / "filler").unlink()
            until(lambda: _creates(server), 60, "with room again, sandboxes start again")
            assert set(listed(server)) == {kept.sandbox_id, deep.sandbox_id}
            server.kill()
            server.start()
            assert set(listed(server)) == {kept.sandbox_id, deep.sandbox_id}
            kill_all(server)
        with sqlite3.connect(server.state / "warren.db") as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        database.close()


def _creates(server: LocalServer) -> bool:
    try:
        Sandbox.create(timeout=600, **server.options).kill()
    except Exception:  # whatever a client makes of the refusals until then
        return False
    return True
