"""Pause, resume, snapshot and fork as operations to crash in: whatever is cut off, a sandbox runs or sleeps, whole.

Every sandbox has a file and a process that counts: what says it kept its memory must have both.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

from e2b import Sandbox, SandboxState

from tests.chaos.operations import BOUND_S, LIFE_S, Operation, checkpoints, listed, new, snapshots, works
from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until

COPIES = 2
FILE = "/home/user/kept"


@dataclass(frozen=True, slots=True)
class Sleeper:
    sandbox: Sandbox
    text: str
    pid: int
    runtime: str

    @property
    def id(self) -> str:
        return self.sandbox.sandbox_id


def awake(server: LocalServer, runtime: str) -> Sleeper:
    sandbox = new(server, runtime)
    text = secrets.token_hex(16)
    sandbox.files.write(FILE, text)
    process = sandbox.commands.run("exec sleep 10000", background=True, timeout=0)
    process.disconnect()
    return Sleeper(sandbox, text, process.pid, runtime)


def asleep(server: LocalServer, runtime: str, mode: str = "full") -> Sleeper:
    sleeper = awake(server, runtime)
    sleeper.sandbox.pause(mode=mode)
    return sleeper


def _asleep_on_disk(server: LocalServer, runtime: str) -> Sleeper:
    return asleep(server, runtime, mode="filesystem")


def _pause(server: LocalServer, sleeper: Sleeper) -> bool:
    return Sandbox.pause(sleeper.id, retries=0, **server.options)


def _pause_on_disk(server: LocalServer, sleeper: Sleeper) -> bool:
    return Sandbox.pause(sleeper.id, mode="filesystem", retries=0, **server.options)


def _resume(server: LocalServer, sleeper: Sleeper) -> bool:
    Sandbox.connect(sleeper.id, timeout=LIFE_S, retries=0, **server.options)
    return True


def _sleeps_if_told_so(server: LocalServer, sleeper: Sleeper, paused: bool | None) -> None:
    assert not paused or state_of(server, sleeper) is SandboxState.PAUSED, "an acknowledged pause holds"
    is_whole(server, sleeper)


def _sleeps_or_runs_with_its_files(server: LocalServer, sleeper: Sleeper, paused: bool | None) -> None:
    assert not paused or state_of(server, sleeper) is SandboxState.PAUSED, "an acknowledged pause holds"
    is_whole(server, sleeper, memory=False)


def _runs_if_told_so(server: LocalServer, sleeper: Sleeper, resumed: bool | None) -> None:
    assert not resumed or state_of(server, sleeper) is SandboxState.RUNNING, "an acknowledged resume holds"
    is_whole(server, sleeper)


def _runs_with_its_files_if_told_so(server: LocalServer, sleeper: Sleeper, resumed: bool | None) -> None:
    assert not resumed or state_of(server, sleeper) is SandboxState.RUNNING, "an acknowledged resume holds"
    is_whole(server, sleeper, memory=False)


def state_of(server: LocalServer, sleeper: Sleeper) -> SandboxState:
    return Sandbox.get_info(sleeper.id, **server.options).state


def is_whole(server: LocalServer, sleeper: Sleeper, *, memory: bool = True) -> None:
    """It sleeps or runs, in one place, and is all there once it runs."""
    assert sleeper.id in listed(server), "it is not lost"
    state, on_disk = state_of(server, sleeper), not memory or sleeper.runtime == "runsc"
    assert state in (SandboxState.PAUSED, SandboxState.RUNNING)
    if state is SandboxState.PAUSED and on_disk:
        place = Path("/run/warren", server.bridge, "sandboxes", sleeper.id)
        until(lambda: not place.exists(), BOUND_S, "what sleeps on disk runs nowhere")
    sandbox = Sandbox.connect(sleeper.id, timeout=LIFE_S, **server.options)
    assert sandbox.files.read(FILE) == sleeper.text
    assert not memory or sleeper.pid in {process.pid for process in sandbox.commands.list()}
    until(lambda: not checkpoints(server), BOUND_S, "what runs lies on no disk")


def _snapshot(server: LocalServer, sleeper: Sleeper) -> str:
    return sleeper.sandbox.create_snapshot(retries=0).snapshot_id


def _starts_what_is_listed(server: LocalServer, sleeper: Sleeper, taken: str | None) -> None:
    _runs_on(server, sleeper)
    there = snapshots(server)
    assert taken is None or there == [taken], "an acknowledged snapshot is there"
    assert len(there) == len(checkpoints(server)), "and nothing that was half written"
    for snapshot_id in there:
        with Sandbox.create(snapshot_id, timeout=LIFE_S, **server.options) as copy:
            assert copy.files.read(FILE) == sleeper.text


def _fork(server: LocalServer, sleeper: Sleeper) -> set[str]:
    copies = sleeper.sandbox.fork(count=COPIES, timeout=LIFE_S, retries=0)
    return {copy.sandbox_id for copy in copies if isinstance(copy, Sandbox)}


def _has_whole_copies_or_none(server: LocalServer, sleeper: Sleeper, made: set[str] | None) -> None:
    _runs_on(server, sleeper)
    copies = listed(server) - {sleeper.id}
    assert made is None or copies == made, "acknowledged copies are there"
    assert checkpoints(server) == set(), "their checkpoint was only for them"
    for copy in copies:
        works(server, copy)
        assert Sandbox.connect(copy, **server.options).files.read(FILE) == sleeper.text


def _runs_on(server: LocalServer, sleeper: Sleeper) -> None:
    assert state_of(server, sleeper) is SandboxState.RUNNING
    sandbox = Sandbox.connect(sleeper.id, **server.options)
    assert sandbox.files.read(FILE) == sleeper.text
    assert sleeper.pid in {process.pid for process in sandbox.commands.list()}


SLEEP_OPERATIONS = (
    Operation("pause", awake, _pause, _sleeps_if_told_so),
    Operation("pause_on_disk", awake, _pause_on_disk, _sleeps_or_runs_with_its_files),
    Operation("resume", asleep, _resume, _runs_if_told_so),
    Operation("resume_from_disk", _asleep_on_disk, _resume, _runs_with_its_files_if_told_so),
    Operation("snapshot", awake, _snapshot, _starts_what_is_listed),
    Operation("fork", awake, _fork, _has_whole_copies_or_none),
)
