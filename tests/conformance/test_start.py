"""Contract 3.3, 6.2.2: how a command starts, what it says and how it ends, through the real client."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from e2b import (
    AsyncSandbox,
    AuthenticationException,
    CommandExitException,
    InvalidArgumentException,
    Sandbox,
    TimeoutException,
)

from .processes import alive, eventually
from .wire import Wire, command, shell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_run_gives_output_and_exit_code(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("echo out; echo err >&2")
    assert (result.stdout, result.stderr, result.exit_code, result.error) == ("out\n", "err\n", 0, None)


def test_first_event_is_start_with_the_pid(wire: Wire) -> None:
    run = wire.run(shell("echo $$"))
    assert run.events[0] == {"start": {"pid": run.pid}}
    assert int(run.stdout) == run.pid


def test_non_zero_exit_is_an_end_with_code_status_and_error(wire: Wire, sandbox: Sandbox) -> None:
    run = wire.run(shell("exit 3"))
    assert run.end == {"exitCode": 3, "exited": True, "status": "exit status 3", "error": "exit status 3"}
    with pytest.raises(CommandExitException) as caught:
        sandbox.commands.run("echo no >&2; exit 3")
    assert (caught.value.exit_code, caught.value.stderr, caught.value.error) == (3, "no\n", "exit status 3")


def test_death_by_signal_is_minus_one_and_not_exited(wire: Wire) -> None:
    run = wire.run(shell("kill -KILL $$"))
    assert run.end == {"exitCode": -1, "status": "signal: killed", "error": "signal: killed"}
    assert wire.run(shell("kill -TERM $$")).end["status"] == "signal: terminated"  # type: ignore[index]


def test_missing_executable_is_127_with_a_line_on_stderr(wire: Wire) -> None:
    run = wire.run(command("/no/such/program", stdin=False))
    assert run.pid is not None
    assert run.end is not None
    assert (run.end["exitCode"], run.end["exited"]) == (127, True)
    assert b"/no/such/program" in run.stderr


def test_executable_without_permission_is_126(wire: Wire, folder: Path) -> None:
    (folder / "plain").write_text("#!/bin/sh\n")
    run = wire.run(command(f"{folder}/plain", stdin=False))
    assert run.end is not None
    assert run.end["exitCode"] == 126
    assert b"plain" in run.stderr


def test_command_without_a_slash_is_found_on_path(wire: Wire) -> None:
    assert wire.run(command("echo", "found", stdin=False)).stdout == b"found\n"


def test_commands_start_without_a_shell_around_them(wire: Wire) -> None:
    run = wire.run(command("/bin/cat", "/proc/self/stat", stdin=False))
    assert int(run.stdout.rpartition(b")")[2].split()[1]) == wire.daemon.pid


def test_arguments_arrive_unchanged(wire: Wire) -> None:
    hard = ["", " a  b ", "$HOME `x` \"'\\", "ünï", "-n", "line\nline", "*"]
    run = wire.run(command("/bin/sh", "-c", 'printf "%s\\0" "$@"', "sh", *hard, stdin=False))
    assert run.stdout.decode().split("\0")[:-1] == hard


def test_multi_line_and_special_characters_through_the_client(sandbox: Sandbox) -> None:
    text = "Ünï 日本 🙂 \"quotes\" 'single' $dollar `tick` \\back"
    line = "cat <<'END'\n" + text + "\nEND"
    assert sandbox.commands.run(line).stdout == text + "\n"


def test_binary_output_is_unchanged(wire: Wire) -> None:
    run = wire.run(command("/bin/sh", "-c", r"for i in $(seq 0 255); do printf \\$(printf %o $i); done", stdin=False))
    assert run.stdout == bytes(range(256))


def test_stdout_and_stderr_stay_apart_and_in_order(wire: Wire) -> None:
    run = wire.run(shell("for i in $(seq 500); do echo o$i; echo e$i >&2; done"))
    assert run.stdout.split() == [f"o{i}".encode() for i in range(1, 501)]
    assert run.stderr.split() == [f"e{i}".encode() for i in range(1, 501)]


def test_output_without_a_newline_arrives_before_the_end(wire: Wire) -> None:
    with wire.stream("process.Process/Start", shell("printf early; read nothing", stdin=True)) as arriving:
        pid = next(arriving).event["start"]["pid"]
        assert next(arriving).event == {"data": {"stdout": "ZWFybHk="}}
        wire.ok("process.Process/CloseStdin", {"process": {"pid": pid}})
        assert list(arriving)[-1].json == {}


def test_end_waits_for_a_child_that_still_holds_stdout(wire: Wire) -> None:
    run = wire.run(shell("(sleep 0.3; echo late) & echo early"))
    assert run.stdout == b"early\nlate\n"
    assert "end" in run.events[-1]


def test_callbacks_get_the_output_as_it_comes(sandbox: Sandbox) -> None:
    out: list[str] = []
    err: list[str] = []
    line = "for i in 1 2 3; do echo $i; echo e$i >&2; done"
    result = sandbox.commands.run(line, on_stdout=out.append, on_stderr=err.append)
    assert ("".join(out), "".join(err)) == ("1\n2\n3\n", "e1\ne2\ne3\n")
    assert result.stdout == "1\n2\n3\n"


def test_retain_output_false_keeps_nothing(sandbox: Sandbox) -> None:
    seen: list[str] = []
    result = sandbox.commands.run("echo x", retain_output=False, on_stdout=seen.append)
    assert (result.stdout, seen) == (None, ["x\n"])


def test_background_handle_iterates_and_waits(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("echo one; echo two", background=True)
    assert alive(handle.pid) or handle.pid > 0
    assert "".join(out or "" for out, _, _ in handle) == "one\ntwo\n"
    assert handle.wait().exit_code == 0


def test_split_utf8_is_put_together_by_the_client(sandbox: Sandbox) -> None:
    assert sandbox.commands.run(r"printf '\342\202'; sleep 0.1; printf '\254'").stdout == "€"


def test_many_commands_at_once_keep_their_output_apart(sandbox: Sandbox) -> None:
    handles = [sandbox.commands.run(f"seq {n}000 {n}999", background=True) for n in range(1, 21)]
    for n, handle in enumerate(handles, 1):
        assert handle.wait().stdout.split() == [str(i) for i in range(n * 1000, n * 1000 + 1000)]


def test_unknown_user_is_unauthenticated(sandbox: Sandbox) -> None:
    with pytest.raises(AuthenticationException, match="invalid username: 'ghost'"):
        sandbox.commands.run("true", user="ghost")


def test_missing_working_directory_is_invalid_argument(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidArgumentException, match="cwd '/no/where' does not exist"):
        sandbox.commands.run("true", cwd="/no/where")


def test_timeout_kills_the_command(sandbox: Sandbox, folder: Path) -> None:
    with pytest.raises(TimeoutException):
        sandbox.commands.run(f"echo $$ > {folder}/pid; exec sleep 600", timeout=1)
    pid = int((folder / "pid").read_text())
    eventually(lambda: not alive(pid), "the command is dead")


def test_process_has_no_open_descriptor_of_the_daemon(wire: Wire) -> None:
    listed = wire.run(command("/bin/ls", "/proc/self/fd", stdin=False)).stdout.split()
    assert set(listed) == {b"0", b"1", b"2", b"3"}  # the last one is ls reading the folder


def test_signals_have_their_default_action_and_are_not_blocked(wire: Wire) -> None:
    lines = wire.run(command("/bin/cat", "/proc/self/status", stdin=False)).stdout.decode().splitlines()
    masks = dict(line.split(":\t") for line in lines if line.startswith(("SigBlk", "SigIgn")))
    # 32 and 33 belong to the C library, whose posix_spawn leaves them ignored in what `make` starts: this guestd.
    library = 1 << 31 | 1 << 32
    assert {name: int(mask, 16) & ~library for name, mask in masks.items()} == {"SigBlk": 0, "SigIgn": 0}


def test_umask_is_022(wire: Wire) -> None:
    assert wire.run(shell("umask")).stdout.strip().lstrip(b"0") == b"22"


def test_start_without_a_process_is_refused(wire: Wire) -> None:
    run = wire.run({})
    assert run.pid is None or (run.end or {}).get("exitCode") == 127
    assert run.error is None or run.error["code"] == "invalid_argument"


@pytest.mark.anyio
async def test_async_client_runs_commands(async_sandbox: Callable[[], AsyncSandbox]) -> None:
    sandbox = async_sandbox()
    seen: list[str] = []
    result = await sandbox.commands.run("echo out; echo err >&2", on_stdout=seen.append)
    assert (result.stdout, result.stderr, seen) == ("out\n", "err\n", ["out\n"])
    with pytest.raises(CommandExitException):
        await sandbox.commands.run("exit 9")


@pytest.mark.anyio
async def test_async_disconnect_leaves_the_process_running(async_sandbox: Callable[[], AsyncSandbox]) -> None:
    sandbox = async_sandbox()
    handle = await sandbox.commands.run("exec sleep 600", background=True)
    await handle.disconnect()
    assert handle.pid in [process.pid for process in await sandbox.commands.list()]
    assert await sandbox.commands.kill(handle.pid)
    eventually(lambda: not os.path.exists(f"/proc/{handle.pid}"), "the process was reaped")
