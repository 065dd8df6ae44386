"""What the doctor does about its findings: only what is named, and nothing for what is fine."""

from warren.doctor import examine
from warren.doctor.finding import Finding
from warren.doctor.fixes import COMMANDS, Command, commands_for, fix
from warren.doctor.machine import ThisMachine
from warren.settings import Settings


def finding(name: str, *, ok: bool) -> Finding:
    return Finding(name=name, found=None, ok=ok, why="", remedy="")


def test_every_fix_is_for_a_finding_that_exists() -> None:
    assert COMMANDS.keys() <= {one.name for one in examine(ThisMachine(), Settings())}


def test_only_what_is_wrong_is_mended_and_a_failure_ends_its_finding() -> None:
    ran: list[Command] = []

    def run(command: Command) -> tuple[bool, str]:
        ran.append(command)
        return command[0] != "apt-get", "no network"

    findings = [
        finding("loop devices", ok=False), finding("crun", ok=True), finding("nftables", ok=False),
        finding("kernel", ok=False),
    ]  # fmt: skip
    done = list(fix(findings, run))
    assert [command[0] for command in ran] == ["modprobe", "apt-get"]
    assert [(one.finding, one.ok) for one in done] == [("loop devices", True), ("nftables", False)]
    assert done[-1].said == "no network"


def test_builds_are_mended_by_set_up_which_a_checkout_has() -> None:
    ((program, step),) = commands_for("guestd")
    assert program.endswith("scripts/setup") and step == "guestd"
