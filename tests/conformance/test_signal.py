"""Contract 3.3, 6.2.2, and Warren's own promise: a signal reaches the whole process group."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from .processes import alive, dead_at_last, eventually
from .wire import Frame, Run, Wire, command, shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2b import Sandbox

START = "process.Process/Start"
SIGNAL = "process.Process/SendSignal"
FAMILY = 'sleep 600 & echo $! > "$0/child"; (sleep 600 & echo $! > "$0/grandchild"; wait) & echo ready; wait'


def family(folder: Path) -> dict[str, object]:
    return command("/bin/sh", "-c", FAMILY, str(folder), stdin=False)


def started(arriving: Iterator[Frame]) -> int:
    return next(arriving).event["start"]["pid"]


def read_pids(folder: Path) -> list[int]:
    paths = [folder / "child", folder / "grandchild"]
    eventually(lambda: all(path.exists() and path.read_text().strip() for path in paths), "the family runs")
    return [int(path.read_text()) for path in paths]


@pytest.mark.parametrize(("name", "status"), [("SIGNAL_SIGKILL", "killed"), ("SIGNAL_SIGTERM", "terminated")])
def test_signal_reaches_the_whole_process_group(wire: Wire, folder: Path, name: str, status: str) -> None:
    with wire.stream(START, family(folder)) as arriving:
        pid = started(arriving)
        pids = read_pids(folder)
        assert wire.ok(SIGNAL, {"process": {"pid": pid}, "signal": name}) == {}
        run = Run.of(list(arriving))
    assert run.end == {"exitCode": -1, "status": f"signal: {status}", "error": f"signal: {status}"}
    eventually(lambda: not any(alive(one) for one in pids), "children and grandchildren are dead")


def test_kill_through_the_client_is_true_once(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("exec sleep 600", background=True)
    assert sandbox.commands.kill(handle.pid)
    eventually(lambda: not alive(handle.pid), "the command is dead")
    eventually(lambda: not sandbox.commands.kill(handle.pid), "the daemon forgot it")


def test_kill_of_an_unknown_pid_is_false(sandbox: Sandbox) -> None:
    assert sandbox.commands.kill(4_000_000) is False


def test_a_pid_that_the_daemon_did_not_start_is_not_found(wire: Wire) -> None:
    own = {"process": {"pid": os.getpid()}, "signal": "SIGNAL_SIGTERM"}
    status, code, message = wire.refused(SIGNAL, own)
    assert (status, code) == (404, "not_found")
    assert str(os.getpid()) in message


@pytest.mark.parametrize("number", [0, 1, 2, 19, 64])
def test_other_signals_are_unimplemented(wire: Wire, number: int) -> None:
    with wire.stream(START, shell("exec sleep 600")) as arriving:
        pid = started(arriving)
        request = {"process": {"pid": pid}, "signal": number}
        assert wire.refused(SIGNAL, request)[:2] == (501, "unimplemented")
        assert alive(pid)
        wire.ok(SIGNAL, {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})


def test_a_handled_term_lets_the_process_end_by_itself(wire: Wire) -> None:
    line = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    with wire.stream(START, shell(line)) as arriving:
        pid = started(arriving)
        assert next(arriving).event == {"data": {"stdout": "cmVhZHkK"}}
        wire.ok(SIGNAL, {"process": {"pid": pid}, "signal": "SIGNAL_SIGTERM"})
        run = Run.of(list(arriving))
    assert run.end is not None
    assert run.end["exitCode"] == 7
    assert b"bye" in run.stdout


def test_end_follows_the_exit_after_a_kill_even_if_somebody_holds_the_pipe(wire: Wire, folder: Path) -> None:
    line = f"setsid sh -c 'echo $$ > {folder}/pid; exec sleep 600' & exec sleep 600"
    with wire.stream(START, shell(line)) as arriving:
        pid = started(arriving)
        eventually(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip(), "the escapee runs")
        with dead_at_last(int((folder / "pid").read_text())):
            wire.ok(SIGNAL, {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
            assert Run.of(list(arriving)).end is not None


def test_signal_by_tag_reaches_the_right_one_of_many(wire: Wire) -> None:
    with (
        wire.stream(START, shell("exec sleep 600", tag="first")) as one,
        wire.stream(START, shell("exec sleep 600", tag="second")) as two,
    ):
        first, second = started(one), started(two)
        wire.ok(SIGNAL, {"process": {"tag": "second"}, "signal": "SIGNAL_SIGKILL"})
        assert Run.of(list(two)).end is not None
        assert alive(first)
        assert not alive(second)
        wire.ok(SIGNAL, {"process": {"tag": "first"}, "signal": "SIGNAL_SIGKILL"})


def test_unknown_tag_is_not_found_and_named(wire: Wire) -> None:
    request = {"process": {"tag": "nobody-has-it"}, "signal": "SIGNAL_SIGKILL"}
    status, code, message = wire.refused(SIGNAL, request)
    assert (status, code) == (404, "not_found")
    assert "nobody-has-it" in message


def test_selector_without_pid_or_tag_is_refused(wire: Wire) -> None:
    assert wire.refused(SIGNAL, {"signal": "SIGNAL_SIGKILL"})[0] in (400, 404)
    assert wire.refused(SIGNAL, {"process": {"pid": 0}, "signal": "SIGNAL_SIGKILL"})[0] in (400, 404)


def test_stopped_processes_die_too(wire: Wire) -> None:
    with wire.stream(START, shell("kill -STOP $$")) as arriving:
        pid = started(arriving)
        wire.ok(SIGNAL, {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
        assert Run.of(list(arriving)).end is not None
