"""Running commands."""

import time
from typing import Any

import pytest
from e2b import (
    AuthenticationException,
    CommandExitException,
    InvalidArgumentException,
    NotFoundException,
    Sandbox,
    SandboxException,
    TimeoutException,
)

from tests.e2e.waiting import until


def running_pids(box: Sandbox) -> set[int]:
    return {process.pid for process in box.commands.list()}


@pytest.mark.covers("P01")
def test_output_comes_back_and_through_callbacks(box: Sandbox) -> None:
    heard: dict[str, list[str]] = {"out": [], "err": []}
    result = box.commands.run(
        "echo first; echo second >&2", on_stdout=heard["out"].append, on_stderr=heard["err"].append
    )
    assert (result.stdout, result.stderr, result.exit_code, result.error) == ("first\n", "second\n", 0, None)
    assert ("".join(heard["out"]), "".join(heard["err"])) == ("first\n", "second\n")


@pytest.mark.covers("P01")
def test_output_streams_while_the_command_runs(box: Sandbox) -> None:
    handle = box.commands.run("echo ready; read answer; echo got $answer", background=True, stdin=True)
    seen = ""
    for stdout, _, _ in handle:
        seen += stdout or ""
        if seen == "ready\n":
            handle.send_stdin("it\n")
    assert seen == "ready\ngot it\n"


@pytest.mark.covers("P01")
def test_a_failing_command_raises_with_its_exit_code_and_output(box: Sandbox) -> None:
    with pytest.raises(CommandExitException) as failure:
        box.commands.run("echo partly; echo why >&2; exit 7")
    assert (failure.value.exit_code, failure.value.stdout, failure.value.stderr) == (7, "partly\n", "why\n")
    assert failure.value.error == "exit status 7"


@pytest.mark.covers("P01")
def test_a_missing_program_exits_with_127(box: Sandbox) -> None:
    with pytest.raises(CommandExitException) as failure:
        box.commands.run("no-such-program-anywhere")
    assert failure.value.exit_code == 127


@pytest.mark.covers("P02")
def test_a_background_command_can_be_waited_for_and_iterated(box: Sandbox) -> None:
    assert box.commands.run("echo later", background=True).wait().stdout == "later\n"
    chunks = [chunk for chunk in box.commands.run("echo out; echo err >&2", background=True)]
    assert "".join(out or "" for out, _, _ in chunks) == "out\n"
    assert "".join(err or "" for _, err, _ in chunks) == "err\n"


@pytest.mark.covers("P02")
def test_a_killed_command_ends_with_its_whole_group(box: Sandbox) -> None:
    handle = box.commands.run("sleep 4321 & sleep 4321; true", background=True, timeout=0)
    assert handle.kill() is True
    with pytest.raises(CommandExitException) as failure:
        handle.wait()
    assert (failure.value.exit_code, failure.value.error) == (-1, "signal: killed")
    assert handle.kill() is False
    until(lambda: not box.commands.run("pgrep -f '^sleep 4321' || true").stdout, 10, "the children are gone")


@pytest.mark.covers("P02", "P07")
def test_a_command_outlives_the_client_that_started_it(box: Sandbox) -> None:
    handle = box.commands.run("read line; echo heard $line", background=True, stdin=True, timeout=0)
    handle.disconnect()
    assert handle.pid in running_pids(box)
    again = box.commands.connect(handle.pid)
    box.commands.send_stdin(handle.pid, "you\n")
    assert again.wait().stdout == "heard you\n"


@pytest.mark.covers("P03")
def test_environment_and_directory_are_those_asked_for(box: Sandbox) -> None:
    result = box.commands.run('pwd; echo "$ONE $TWO"', cwd="/usr/lib", envs={"ONE": "1", "TWO": "two words"})
    assert result.stdout == "/usr/lib\n1 two words\n"
    assert box.commands.run("pwd").stdout == "/home/user\n"
    assert box.commands.run("pwd", cwd="~").stdout == "/home/user\n"


@pytest.mark.covers("P03", "C07")
def test_a_missing_directory_is_an_invalid_argument(box: Sandbox) -> None:
    with pytest.raises(InvalidArgumentException, match="cwd '/no/such' does not exist"):
        box.commands.run("true", cwd="/no/such")


@pytest.mark.covers("P03")
def test_commands_run_as_the_user_asked_for(box: Sandbox) -> None:
    who = 'echo "$(id -un):$(id -u) $HOME $USER $LOGNAME"'
    assert box.commands.run(who).stdout == "user:1000 /home/user user user\n"
    assert box.commands.run(who, user="root").stdout == "root:0 /root root root\n"
    assert box.commands.run("sudo id -u").stdout == "0\n"


@pytest.mark.covers("P03", "C07")
def test_an_unknown_user_is_refused(box: Sandbox) -> None:
    with pytest.raises(AuthenticationException, match="invalid username: 'nobody-here'"):
        box.commands.run("true", user="nobody-here")


@pytest.mark.covers("P04")
def test_a_timeout_kills_the_command(box: Sandbox) -> None:
    with pytest.raises(TimeoutException):
        box.commands.run("sleep 5432", timeout=1)
    until(lambda: not box.commands.run("pgrep -f '^sleep 5432' || true").stdout, 10, "the command is gone")


@pytest.mark.covers("P04")
def test_a_timeout_of_zero_is_none_at_all(box: Sandbox) -> None:
    assert box.commands.run("sleep 0.2; echo done", timeout=0, request_timeout=0).stdout == "done\n"


@pytest.mark.covers("P05")
def test_stdin_is_sent_and_closed(box: Sandbox) -> None:
    handle = box.commands.run("cat; sleep 1; echo end", background=True, stdin=True)
    handle.send_stdin("one ")
    handle.send_stdin(b"two\n")
    handle.close_stdin()
    box.commands.close_stdin(handle.pid)
    assert handle.wait().stdout == "one two\nend\n"


@pytest.mark.covers("P05")
def test_stdin_is_empty_unless_asked_for(box: Sandbox) -> None:
    assert box.commands.run("cat; echo end").stdout == "end\n"
    handle = box.commands.run("sleep 30", background=True, stdin=False)
    with pytest.raises(SandboxException):
        handle.send_stdin("nobody listens")
    handle.kill()


@pytest.mark.covers("P06")
def test_input_streams_in_one_request(box: Sandbox) -> None:
    handle = box.commands.run("head -n 3", background=True, stdin=True)
    box.commands.stream_input(handle.pid, (f"line {number}\n" for number in range(3)))
    assert handle.wait().stdout == "line 0\nline 1\nline 2\n"


@pytest.mark.covers("P06", "C07")
def test_input_for_nobody_is_not_found(box: Sandbox) -> None:
    with pytest.raises(NotFoundException):
        box.commands.stream_input(999_999, ["x"])
    with pytest.raises(NotFoundException):
        box.commands.send_stdin(999_999, "x")


@pytest.mark.covers("P07")
def test_the_list_shows_what_runs_and_how_it_was_started(box: Sandbox) -> None:
    handle = box.commands.run("sleep 60", background=True, envs={"MARK": "here"}, cwd="/tmp")
    shown = next(process for process in box.commands.list() if process.pid == handle.pid)
    assert (shown.cmd, shown.args, shown.cwd) == ("/bin/bash", ["-l", "-c", "sleep 60"], "/tmp")
    assert shown.envs["MARK"] == "here"
    assert box.commands.kill(handle.pid) is True
    until(lambda: handle.pid not in running_pids(box), 10, "the killed command is not listed")
    assert box.commands.kill(handle.pid) is False


@pytest.mark.covers("P07")
def test_the_result_can_still_be_fetched_after_the_end(box: Sandbox) -> None:
    handle = box.commands.run("exit 3", background=True)
    with pytest.raises(CommandExitException):
        handle.wait()
    with pytest.raises(CommandExitException) as failure:
        box.commands.connect(handle.pid).wait()
    assert failure.value.exit_code == 3


@pytest.mark.covers("P07", "C07")
def test_connecting_to_nobody_is_not_found(box: Sandbox) -> None:
    with pytest.raises(NotFoundException, match="999999"):
        box.commands.connect(999_999)
    assert box.commands.kill(999_999) is False


@pytest.mark.covers("P07")
def test_two_clients_hear_the_same_output(box: Sandbox) -> None:
    first = box.commands.run("read go; echo for all; exit 0", background=True, stdin=True)
    second = Sandbox.connect(box.sandbox_id).commands.connect(first.pid)
    first.send_stdin("\n")
    assert first.wait().stdout == second.wait().stdout == "for all\n"


@pytest.mark.covers("P08")
def test_output_need_not_be_retained(box: Sandbox) -> None:
    heard: list[str] = []
    result = box.commands.run("echo streamed", on_stdout=heard.append, retain_output=False)
    assert (result.stdout, heard) == (None, ["streamed\n"])


@pytest.mark.covers("P09")
@pytest.mark.parametrize(
    "text",
    ["quotes ' \" `", "dollar $HOME \\n", "čeština, 日本語, 🦡", "tab\there", "two\nlines", "*?[a]{b,c} ~ # ! & |"],
)
def test_special_characters_arrive_unharmed(text: str, box: Sandbox) -> None:
    assert box.commands.run('printf %s "$TEXT"', envs={"TEXT": text}).stdout == text
    quoted = text.replace("'", "'\\''")
    assert box.commands.run(f"printf %s '{quoted}'").stdout == text


@pytest.mark.covers("P09")
def test_a_script_of_many_lines_runs_as_one_command(box: Sandbox) -> None:
    script = "total=0\nfor i in 1 2 3; do\n  total=$((total + i))\ndone\necho $total\n"
    assert box.commands.run(script).stdout == "6\n"


@pytest.mark.covers("P09")
def test_large_output_arrives_whole(box: Sandbox) -> None:
    result = box.commands.run("seq 1 400000")
    assert result.stdout == "".join(f"{number}\n" for number in range(1, 400_001))


@pytest.mark.covers("P09")
def test_a_character_split_between_two_writes_stays_whole(box: Sandbox) -> None:
    heard: list[str] = []
    command = r"printf '\xe2\x82'; sleep 0.3; printf '\xac!'"
    assert box.commands.run(command, on_stdout=heard.append).stdout == "€!"
    assert "".join(heard) == "€!"


@pytest.mark.covers("P09")
def test_binary_output_breaks_nothing(box: Sandbox) -> None:
    result = box.commands.run(r"printf '\x00\xff\xfe ok'")
    assert result.stdout == "\x00\ufffd\ufffd ok"


@pytest.mark.covers("P04", "P10")
def test_killing_the_sandbox_tells_waiting_clients_why(create: Any) -> None:
    sandbox = create()
    handle = sandbox.commands.run("sleep 600", background=True, timeout=0)
    started = time.monotonic()
    assert sandbox.kill()
    with pytest.raises(TimeoutException, match="was killed or reached its end of life"):
        handle.wait()
    assert time.monotonic() - started < 30
    with pytest.raises(TimeoutException, match="was not found"):
        sandbox.commands.run("true")
