"""Pauses in the middle of work: nothing that was written or known before is lost, round after round."""

import json
from collections.abc import Callable

import pytest
from e2b import PtySize, Sandbox

from tests.e2e.test_pty import Terminal
from tests.e2e.waiting import until

Create = Callable[..., Sandbox]
LONG_S = 60.0
ROUNDS = 20

WRITER = """
import hashlib, json, os, time
whole, number = hashlib.sha256(), 0
with open("/home/user/blocks", "wb", buffering=0) as blocks:
    while True:
        block = os.urandom(4096)
        whole.update(block)
        blocks.write(block)
        number += 1
        with open("/home/user/.said", "w") as said:
            json.dump([number, whole.hexdigest()], said)
        os.rename("/home/user/.said", "/home/user/said")
        time.sleep(0.002)
"""
"""Writes without end; what it says of all that it wrote it knows from its own memory."""

CHECK = """
import hashlib, json
number, digest = json.load(open("/home/user/said"))
print(json.dumps([number, hashlib.sha256(open("/home/user/blocks", "rb").read(number * 4096)).hexdigest() == digest]))
"""


@pytest.mark.covers("S15")
def test_a_busy_writer_loses_nothing_in_twenty_rounds(create: Create, runtime: str) -> None:
    sandbox = create()
    sandbox.files.write("/tmp/writer.py", WRITER)
    sandbox.files.write("/tmp/check.py", CHECK)
    writer = sandbox.commands.run("exec python3 /tmp/writer.py", background=True, timeout=0)
    until(lambda: sandbox.files.exists("/home/user/said"), LONG_S, "the writer has begun")
    before = 0
    for number in range(ROUNDS if runtime == "runsc" else 3):
        assert sandbox.pause() is True, f"round {number}"
        sandbox.connect()
        written, is_right = json.loads(sandbox.commands.run("python3 /tmp/check.py").stdout)
        assert is_right, f"round {number}, after {written} blocks"
        assert written > before
        before = written
    assert writer.pid in {process.pid for process in sandbox.commands.list()}


@pytest.mark.covers("T04", "S15")
def test_a_terminal_goes_on_and_a_watch_is_made_again(create: Create) -> None:
    sandbox = create()
    terminal = Terminal(sandbox, sandbox.pty.create(PtySize(rows=30, cols=100), timeout=0))
    assert terminal.ask("KNOWN=before; cd /tmp; pwd") == "/tmp"
    sandbox.files.make_dir("/home/user/watched")
    sandbox.files.watch_dir("/home/user/watched")
    assert sandbox.pause() is True
    sandbox.connect()
    again = Terminal(sandbox, sandbox.pty.connect(terminal.handle.pid, timeout=0))
    assert again.ask("echo $KNOWN; pwd").split() == ["before", "/tmp"]
    watch = sandbox.files.watch_dir("/home/user/watched")
    sandbox.files.write("/home/user/watched/new", "x")
    until(lambda: "new" in {event.name for event in watch.get_new_events()}, LONG_S, "the new watch sees it")
    watch.stop()
