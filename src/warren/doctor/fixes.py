"""What the doctor can do about a finding by itself: kernel modules and switches, Debian packages, missing builds.

Nothing that could take something away from somebody: no reboot, no mount, no change of a file that is not ours. A
module or switch lasts until the next boot.
"""

import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from warren.doctor.finding import Finding

FIX_DEADLINE_S = 1800
"""Seconds for one command; building gVisor takes two minutes on a small machine, a slow mirror longer."""

Command = tuple[str, ...]
_APT: Command = ("apt-get", "install", "--yes", "--no-install-recommends")
_SETUP = Path(__file__).resolve().parents[3] / "scripts" / "setup"
"""There in a checkout; an installed package has none, and then its builds cannot be fixed from here."""

COMMANDS: Mapping[str, tuple[Command, ...]] = {
    "user namespaces": (("sysctl", "-w", "user.max_user_namespaces=10000"),),
    "file systems": (("modprobe", "-a", "erofs", "overlay", "ext4"),),
    "loop devices": (("modprobe", "loop"),),
    "network devices": (("modprobe", "-a", "veth", "bridge"),),
    "nftables": ((*_APT, "nftables"), ("modprobe", "nf_tables")),
    "tools": (
        (*_APT, "iproute2", "nftables", "mount", "erofs-utils", "e2fsprogs", "util-linux", "skopeo", "umoci", "zstd"),
    ),
    "crun": ((*_APT, "crun"),),
    "*.localhost": ((*_APT, "libnss-myhostname"),),
    "runsc (gVisor)": ((str(_SETUP), "runsc"),),
    "guestd": ((str(_SETUP), "guestd"),),
    "template base": ((str(_SETUP), "template"),),
}
"""By the name of the finding; a test compares them with the doctor's."""


@dataclass(frozen=True, slots=True)
class Fix:
    """One command that was run for a finding, and how it ended: `said` is the end of what it printed."""

    finding: str
    command: Command
    ok: bool
    said: str


Run = Callable[[Command], tuple[bool, str]]


def fix(findings: Iterable[Finding], run: Run) -> Iterable[Fix]:
    """Try what there is for each finding that is not ok, in order; a command that fails ends those of its finding."""
    for finding in findings:
        if finding.ok:
            continue
        for command in commands_for(finding.name):
            ok, said = run(command)
            yield Fix(finding.name, command, ok, said)
            if not ok:
                break


def commands_for(name: str) -> Sequence[Command]:
    return [command for command in COMMANDS.get(name, ()) if command[0] != str(_SETUP) or _SETUP.exists()]


def run_here(command: Command) -> tuple[bool, str]:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=FIX_DEADLINE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        return False, f"{command[0]} is not there"
    except subprocess.TimeoutExpired:
        return False, f"not done within {FIX_DEADLINE_S} s"
    lines = (done.stderr or done.stdout).strip().splitlines()
    return done.returncode == 0, lines[-1] if lines else ""
