"""Egress rules outlive sleep and go along with copies: they judge what sleeps from its first moment awake."""

import socket
from collections.abc import Callable

import pytest
from e2b import Sandbox

from tests.e2e.internet import Internet
from tests.e2e.test_network import reaches
from tests.e2e.waiting import until

pytestmark = pytest.mark.alone
"""The trapped addresses are the machine's, and one test at a time can have them."""

Create = Callable[..., Sandbox]
LONG_S = 40.0

KNOCKER = """
import itertools, os, socket, sys, time
for count in itertools.count(1):
    door = socket.socket()
    door.setblocking(False)
    door.connect_ex((sys.argv[1], 80))
    time.sleep(0.01)
    door.close()
    with open("/tmp/knocks.part", "w") as file:
        file.write(str(count))
    os.rename("/tmp/knocks.part", "/tmp/knocks")
"""

PATIENT = """
import os, socket, sys
talk = socket.create_connection((sys.argv[1], 81), timeout=20)
talk.settimeout(None)
open("/tmp/connected", "w").close()
with open("/tmp/ended.part", "w") as file:
    for tried in (lambda: talk.recv(1), lambda: talk.send(b"x")):
        try:
            print(tried(), file=file)
        except OSError as error:
            print(type(error).__name__, file=file)
os.rename("/tmp/ended.part", "/tmp/ended")
"""


class Knocking:
    """Processes of sandboxes that try to get out all the time: before their sleep, at once after it, and in copies."""

    def __init__(self, internet: Internet) -> None:
        self._internet, self._door, self._own = internet, internet.servers[1], len(internet.visits())

    def begin(self, sandbox: Sandbox) -> None:
        sandbox.commands.run("rm -f /tmp/knocks")
        sandbox.files.write("/tmp/knocker.py", KNOCKER)
        sandbox.commands.run(f"exec python3 /tmp/knocker.py {self._door}", background=True, timeout=0)
        until(lambda: sandbox.files.exists("/tmp/knocks"), LONG_S, "it knocks")
        self.goes_on(sandbox)

    def goes_on(self, sandbox: Sandbox) -> None:
        before = int(sandbox.files.read("/tmp/knocks"))
        until(lambda: int(sandbox.files.read("/tmp/knocks")) > before + 5, LONG_S, "it goes on to knock")

    @property
    def successes(self) -> int:
        """How often anybody got out so far. Ours comes after all those that are at the door already."""
        with socket.create_connection((self._door, 80), timeout=LONG_S) as ours:
            ours.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert ours.recv(1000).startswith(b"HTTP/1.1 200")
        self._own += 1
        return len(self._internet.visits()) - self._own

    def gets_out(self) -> bool:
        before = self.successes
        return until(lambda: self.successes > before, LONG_S, "it gets out: it does knock, and at the right door")


@pytest.mark.covers("N01")
@pytest.mark.threat("B5")
def test_what_was_created_closed_stays_closed_after_sleep_and_in_copies(
    create: Create, internet: Internet, runtime: str
) -> None:
    source = create(allow_internet_access=False, lifecycle={"on_timeout": "pause", "auto_resume": True})
    knocking = Knocking(internet)
    knocking.begin(source)
    source.pause()
    source.connect()
    knocking.goes_on(source)
    source.pause()
    assert source.commands.run("echo woken by traffic").exit_code == 0
    knocking.goes_on(source)
    (copy,) = source.fork(timeout=120)
    assert isinstance(copy, Sandbox), copy
    snapshot = source.create_snapshot()
    try:
        for each in (copy, create(snapshot.snapshot_id, allow_internet_access=False)):
            knocking.goes_on(each) if runtime == "runsc" else knocking.begin(each)
        Sandbox.pause(source.sandbox_id, mode="filesystem")
        knocking.begin(source.connect())
        assert knocking.successes == 0
        # A snapshot has no rules by itself: they are those that the create from it names.
        assert reaches(create(snapshot.snapshot_id), internet.servers[0])
    finally:
        copy.kill()
        Sandbox.delete_snapshot(snapshot.snapshot_id)


@pytest.mark.covers("N01", "N03")
@pytest.mark.threat("B5")
def test_rules_that_change_while_it_sleeps_are_in_force_when_it_wakes(create: Create, internet: Internet) -> None:
    sandbox, knocking = create(), Knocking(internet)
    knocking.begin(sandbox)
    assert knocking.gets_out()
    sandbox.pause()
    sandbox.update_network({"allow_internet_access": False})
    shown = Sandbox.get_info(sandbox.sandbox_id)
    assert (shown.state.value, shown.allow_internet_access) == ("paused", False), "it sleeps on"
    before = knocking.successes
    sandbox.connect()
    knocking.goes_on(sandbox)
    assert knocking.successes == before
    sandbox.pause()
    sandbox.update_network({})
    sandbox.connect()
    assert knocking.gets_out()


def assert_it_was_told(sandbox: Sandbox) -> None:
    """gVisor ends what it cannot restore: the stream is at its end for who reads, and broken for who writes."""
    until(lambda: sandbox.files.exists("/tmp/ended"), LONG_S, "who waits for an answer from outside is told")
    assert sandbox.files.read("/tmp/ended").splitlines() == ["b''", "BrokenPipeError"]


@pytest.mark.covers("S15", "S19")
def test_who_waits_for_an_answer_from_outside_is_told_in_a_copy_and_after_a_sleep(
    create: Create, internet: Internet, runtime: str
) -> None:
    sandbox = create()
    sandbox.files.write("/tmp/patient.py", PATIENT)
    sandbox.commands.run(f"exec python3 /tmp/patient.py {internet.servers[1]}", background=True, timeout=0)
    until(lambda: sandbox.files.exists("/tmp/connected"), LONG_S, "it is connected")
    if runtime == "crun":  # frozen where it is: there is nothing to reset, and its copies have files alone
        sandbox.pause()
        sandbox.connect()
        assert not sandbox.files.exists("/tmp/ended")
        return
    (copy,) = sandbox.fork(timeout=120)
    assert isinstance(copy, Sandbox), copy
    try:
        assert_it_was_told(copy)
    finally:
        copy.kill()
    assert not sandbox.files.exists("/tmp/ended"), "the source's goes on"
    sandbox.pause()
    sandbox.connect()
    assert_it_was_told(sandbox)
