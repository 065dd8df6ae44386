"""Commands of an earlier server's runtimes: ended, or waited for; and nothing else is touched. Needs root."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from warren.engine.oci.orphans import end_orphans
from warren.engine.oci.places import Places
from warren.engine.oci.process import ProcessId
from warren.engine.oci.resuming import AT_WORK

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root's commands count")
HERE, ELSEWHERE = Places(Path("/run/warren/here"), Path("/nowhere")), Places(Path("/run/warren/he"), Path("/nowhere"))
Begin = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """A process that has these words and does what the shell makes of `script`."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(*words: str, script: str = "read -r _", name: str = "runsc") -> subprocess.Popen[bytes]:
        line = [name, "-c", script, *words]
        begun.append(subprocess.Popen(line, executable="/bin/sh", stdin=subprocess.PIPE))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def test_what_an_earlier_server_began_is_ended_before_anything_is_looked_at(begin: Begin) -> None:
    starts = begin(f"--root={HERE.runsc_root}", "restore", "i1"), begin(f"--root={HERE.crun_root}", "run", "i2")
    others = (
        begin(f"--root={ELSEWHERE.runsc_root}", "restore", "i1"),
        begin(f"--root={HERE.runsc_root}x", "restore", "i1"),
        begin(f"--root={HERE.runsc_root}", "boot", "i1", name="runsc-sandbox"),
        begin(f"--root={HERE.runsc_root}", "gofer", name="runsc-gofer"),
    )
    end_orphans(HERE)
    assert [process.wait(5) for process in starts] == [-9, -9]
    assert [process.poll() for process in others] == [None] * 4


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_what_stops_or_wakes_a_kernel_comes_to_its_end(begin: Begin, verb: str) -> None:
    slow = begin(f"--root={HERE.runsc_root}", verb, "i1", script="sleep 0.3; exit 7")
    end_orphans(HERE)
    assert slow.wait(5) == 7


def test_what_does_not_come_to_its_end_is_ended(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warren.model.limits.FREEZE_DEADLINE_S", 0.1)
    stuck = begin(f"--root={HERE.runsc_root}", "pause", "i1")
    end_orphans(HERE)
    assert stuck.wait(5) == -9


def test_what_still_wakes_a_kernel_is_left_at_work_and_noted(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warren.model.limits.FREEZE_DEADLINE_S", 0.1)
    places = Places(tmp_path, Path("/nowhere"))
    (places.sandboxes / "i1").mkdir(parents=True)
    slow = begin(f"--root={places.runsc_root}", "resume", "i1")
    end_orphans(places)
    assert slow.poll() is None
    found = ProcessId.of(slow.pid)
    assert found is not None
    assert json.loads((places.sandboxes / "i1" / AT_WORK).read_text()) == [found.pid, found.started]
