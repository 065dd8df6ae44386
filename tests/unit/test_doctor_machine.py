"""The questions that the doctor asks the machine it runs on: each has an answer, whatever the machine is."""

import socket
from pathlib import Path

from warren.doctor.machine import ThisMachine

MACHINE = ThisMachine()
SYS_GETPID = 39
NO_SUCH_SYSCALL = 9999


def test_a_command_that_is_missing_or_fails_has_no_output() -> None:
    assert MACHINE.output("/nonexistent/program") is None
    assert MACHINE.output("false") is None
    assert MACHINE.output("echo", "here") == "here\n"


def test_a_file_that_is_missing_or_not_text_has_no_text(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xfd")
    assert MACHINE.text(str(tmp_path / "binary")) is None
    assert MACHINE.text(str(tmp_path / "absent")) is None


def test_unknown_system_calls_are_told_from_known_ones() -> None:
    assert MACHINE.knows_syscall(SYS_GETPID)
    assert not MACHINE.knows_syscall(NO_SUCH_SYSCALL)


def test_the_version_go_left_in_a_program_is_found(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\0\1mod\tgvisor.dev/gvisor\tv0.0.0-20260905035102-160fafc42237\th1:abc=\n")
    assert MACHINE.go_module_version(str(program), "gvisor.dev/gvisor") == "v0.0.0-20260905035102-160fafc42237"
    assert MACHINE.go_module_version(str(program), "example.org/other") is None
    (tmp_path / "empty").touch()
    assert MACHINE.go_module_version(str(tmp_path / "empty"), "gvisor.dev/gvisor") is None


def test_free_space_of_a_folder_to_come_is_that_of_its_parent(tmp_path: Path) -> None:
    assert MACHINE.free_bytes(str(tmp_path / "not" / "yet")) > 0


def test_a_port_in_use_is_told() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not MACHINE.can_listen("127.0.0.1", listener.getsockname()[1])


def test_only_finished_templates_are_listed(tmp_path: Path) -> None:
    (tmp_path / "base-1").mkdir()
    (tmp_path / "base-2").mkdir()
    (tmp_path / "base-2" / "template.json").touch()
    assert MACHINE.templates(str(tmp_path)) == ("base-2",)
