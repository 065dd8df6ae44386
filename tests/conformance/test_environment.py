"""Contract 3.3, 6.2.2: as whom, where and with which variables a command runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import CONTROL, TOKEN
from .wire import Wire, command, shell

if TYPE_CHECKING:
    from pathlib import Path

    from e2b import Sandbox

    from .daemon import Daemon


def environment(wire: Wire, *, user: str | None = None, **more: object) -> dict[str, str]:
    run = wire.run(command("/usr/bin/env", "-0", stdin=False, **more), user=user)
    assert run.error is None, run.error
    return dict(pair.split("=", 1) for pair in run.stdout.decode().split("\0") if pair)


def test_variables_of_the_user_come_first(wire: Wire) -> None:
    found = environment(wire)
    home = str(wire.daemon.home("user"))
    assert {name: found[name] for name in ("HOME", "USER", "LOGNAME")} == {
        "HOME": home,
        "USER": "user",
        "LOGNAME": "user",
    }
    assert "/usr/bin" in found["PATH"].split(":")


def test_no_terminal_shell_or_language_is_made_up(wire: Wire) -> None:
    assert not {"TERM", "SHELL", "LANG", "LC_ALL"} & set(environment(wire))


def test_request_wins_over_init_and_init_over_the_user(fresh_wire: Wire) -> None:
    fresh_wire.daemon.init(envVars={"A": "init", "B": "init", "HOME": "/from/init"})
    found = environment(fresh_wire, envs={"B": "request", "USER": "somebody"})
    assert (found["A"], found["B"], found["HOME"], found["USER"]) == ("init", "request", "/from/init", "somebody")


def test_path_of_the_request_is_used_to_find_the_command(wire: Wire, folder: Path) -> None:
    (folder / "mine").write_text("#!/bin/sh\necho mine\n")
    (folder / "mine").chmod(0o755)
    run = wire.run(command("mine", stdin=False, envs={"PATH": f"{folder}:/usr/bin:/bin"}))
    assert run.stdout == b"mine\n"


def test_path_of_init_is_used_to_find_the_command(fresh_wire: Wire, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("#!/bin/sh\necho mine\n")
    (tmp_path / "mine").chmod(0o755)
    fresh_wire.daemon.init(envVars={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert fresh_wire.run(command("mine", stdin=False)).stdout == b"mine\n"


def test_platform_variables_are_set(fresh_wire: Wire) -> None:
    fresh_wire.daemon.init(sandboxID="isandbox", templateID="ttemplate", hyperloopIP="192.0.2.1")
    found = environment(fresh_wire)
    assert (found["E2B_SANDBOX"], found["E2B_SANDBOX_ID"], found["E2B_TEMPLATE_ID"]) == (
        "true",
        "isandbox",
        "ttemplate",
    )
    assert "E2B_EVENTS_ADDRESS" in found


def test_platform_variables_yield_to_a_request_but_not_to_init(fresh_wire: Wire) -> None:
    fresh_wire.daemon.init(sandboxID="isandbox", envVars={"E2B_SANDBOX_ID": "forged", "E2B_SANDBOX": "no"})
    found = environment(fresh_wire)
    assert (found["E2B_SANDBOX_ID"], found["E2B_SANDBOX"]) == ("isandbox", "true")
    assert environment(fresh_wire, envs={"E2B_SANDBOX_ID": "mine"})["E2B_SANDBOX_ID"] == "mine"


def test_nothing_of_the_daemon_leaks_into_commands(fresh_wire: Wire) -> None:
    fresh_wire.daemon.init(accessToken=TOKEN, controlToken=CONTROL)
    text = str(environment(fresh_wire))
    assert TOKEN not in text
    assert CONTROL not in text


def test_client_passes_envs(sandbox: Sandbox) -> None:
    result = sandbox.commands.run('printf "%s|%s" "$A" "$FROM_INIT"', envs={"A": "a b=c\nü"})
    assert result.stdout == "a b=c\nü|yes"


def test_user_has_uid_gid_and_supplementary_groups(wire: Wire) -> None:
    assert wire.run(shell("id -u; id -g; id -G")).stdout.split() == [b"1000", b"1000", b"1000", b"2000", b"2001"]
    assert wire.run(shell("id -u; id -g; id -G"), user="root").stdout.split() == [b"0", b"0", b"0", b"2001"]
    assert wire.run(shell("id -u; id -G", cwd="/"), user="nobody").stdout.split() == [b"65534", b"65534"]


def test_other_users_hold_no_capability(wire: Wire) -> None:
    lines = wire.run(command("/bin/cat", "/proc/self/status", stdin=False)).stdout.decode().splitlines()
    effective = next(line for line in lines if line.startswith("CapEff"))
    assert set(effective.split(":\t")[1]) == {"0"}


def test_client_chooses_the_user(sandbox: Sandbox) -> None:
    assert sandbox.commands.run("id -un").stdout == "user\n"
    assert sandbox.commands.run("id -un", user="root").stdout == "root\n"


def test_default_user_is_root_until_init(fresh_wire: Wire) -> None:
    assert fresh_wire.run(shell("id -u")).stdout == b"0\n"
    fresh_wire.daemon.init(defaultUser="nobody")
    assert fresh_wire.run(shell("id -u", cwd="/")).stdout == b"65534\n"


def test_cwd_is_home_by_default(wire: Wire) -> None:
    assert wire.run(command("/bin/pwd", stdin=False)).stdout.strip() == str(wire.daemon.home("user")).encode()
    home = str(wire.daemon.home("root")).encode()
    assert wire.run(command("/bin/pwd", stdin=False), user="root").stdout.strip() == home


def test_cwd_is_the_default_workdir_when_one_is_set(fresh_wire: Wire, tmp_path: Path) -> None:
    fresh_wire.daemon.init(defaultWorkdir=str(tmp_path))
    assert fresh_wire.run(command("/bin/pwd", stdin=False)).stdout.strip() == str(tmp_path).encode()


@pytest.mark.parametrize(("asked", "below"), [("~", ""), ("~/work", "/work"), ("work", "/work"), ("./work/.", "/work")])
def test_cwd_expands_home_and_relative_paths(wire: Wire, asked: str, below: str) -> None:
    (wire.daemon.home("user") / "work").mkdir(exist_ok=True)
    run = wire.run(command("/bin/pwd", stdin=False, cwd=asked))
    assert run.stdout.decode().strip() == str(wire.daemon.home("user")) + below


def test_cwd_of_another_users_home_is_an_error(wire: Wire) -> None:
    run = wire.run(command("/bin/pwd", stdin=False, cwd="~root"))
    assert run.error is not None
    assert run.error["code"] == "invalid_argument"


def test_missing_cwd_names_the_path(wire: Wire) -> None:
    run = wire.run(shell("true", cwd="/no/such/place"))
    assert run.error == {"code": "invalid_argument", "message": "cwd '/no/such/place' does not exist"}


def test_cwd_that_may_not_be_entered_is_invalid_argument(wire: Wire, folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o700)  # belongs to root
    run = wire.run(shell("pwd", cwd=f"{folder}/locked"))
    assert run.error is not None
    assert run.error["code"] == "invalid_argument"


def test_cwd_that_is_a_file_is_invalid_argument(wire: Wire, folder: Path) -> None:
    (folder / "file").touch()
    run = wire.run(shell("pwd", cwd=f"{folder}/file"))
    assert run.error is not None
    assert run.error["code"] == "invalid_argument"


def test_users_added_later_are_found(fresh: Daemon) -> None:
    wire = Wire(fresh)
    assert wire.refused("filesystem.Filesystem/Stat", {"path": "/"}, user="late")[1] in (401, "unauthenticated")
    with (fresh.folder / "passwd").open("a") as passwd:
        passwd.write("late:x:1234:1234::/:/bin/sh\n")
    assert wire.run(shell("id -u"), user="late").stdout == b"1234\n"
