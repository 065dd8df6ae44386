"""A systemd of the test's own: process 1 of its own namespaces, with no unit but those it is given.

It shares the network and the control groups' file systems with the machine, as Warren must have them; of those it sees
no more than the machine has mounted, for it would mount the others, for everybody. What it might change of the machine
at its start (limits of the kernel, files of /etc) it finds read-only.
"""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Self

from tests.e2e.waiting import until

SYSTEMD = Path("/lib/systemd/systemd")
HIERARCHIES = ("systemd", "unified", "devices", "memory", "pids", "cpu", "blkio", "")
"""Of either layout of cgroups; the last is that of v2 alone."""
TARGETS = ("sysinit.target", "basic.target", "shutdown.target", "network-online.target", "trial.target")
COMMAND_S = 120
BOOT = """
mount --make-rprivate /
mount -t proc proc /proc
# A user namespace may mount a proc only where it sees one with nothing over it.
mkdir "$1/proc" && mount -t proc proc "$1/proc"
for place in /proc/sys/fs /proc/sys/net/unix /proc/sys/kernel /etc; do
    mount --bind $place $place && mount -o remount,bind,ro $place
done
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir "$1/groups" && mount --rbind /sys/fs/cgroup "$1/groups"
    mount -t tmpfs tmpfs /sys/fs/cgroup
    for place in "$1"/groups/*/; do
        own="/sys/fs/cgroup/$(basename "$place")" && mkdir "$own" && mount --bind "$place" "$own"
    done
    while read -r name rest; do
        case $name in '#'*) ;; *) [ -e "/sys/fs/cgroup/$name/cgroup.procs" ] || continue ;; esac
        echo "$name $rest"
    done < /proc/cgroups > "$1/controllers"
    mount --bind "$1/controllers" /proc/cgroups
fi
mkdir -p /run/warren "$1/warren" && mount --rbind /run/warren "$1/warren"
mount -t tmpfs tmpfs /run && mkdir -p /run/warren && mount --rbind "$1/warren" /run/warren
for place in /etc/systemd/system /lib/systemd/system-generators; do mount -t tmpfs tmpfs $place; done
mount --bind "$1/units" /lib/systemd/system
export container=trial
exec /lib/systemd/systemd --system --unit=trial.target --show-status=0
"""


class Systemd:
    def __init__(self, folder: Path, units: Mapping[str, str]) -> None:
        """`units`: their texts by their names."""
        self._folder, self._group = folder, f"warren-systemd-{token_hex(3)}"
        (folder / "units").mkdir(parents=True)
        for target in TARGETS:
            (folder / "units" / target).write_text(f"[Unit]\nDescription={target}\nDefaultDependencies=no\n")
        for name, text in units.items():
            (folder / "units" / name).write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        groups = " ".join(str(group) for group in self._groups())
        enter = f'for group in {groups}; do mkdir $group && echo $$ > $group/cgroup.procs; done; exec "$@"'
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc"]
        argv = ["sh", "-ec", enter, "sh", *namespaces, "sh", "-ec", BOOT, "sh", str(self._folder)]
        self._process = subprocess.Popen(argv, start_new_session=True)
        until(lambda: self.control("is-system-running").stdout.strip() == "running", COMMAND_S, "systemd runs")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(COMMAND_S)
        until(self._is_cleared, COMMAND_S, "its control groups are gone")

    def control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`systemctl`; what fails says so in the result."""
        into = ["nsenter", f"--target={self._first()}", "--mount", "--pid", "--uts", "--ipc"]
        return subprocess.run(
            [*into, "systemctl", "--no-pager", *arguments],
            capture_output=True, text=True, timeout=COMMAND_S, check=False,
        )  # fmt: skip

    def _first(self) -> str:
        """Its pid; the shell that becomes it has it from the start."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        until(lambda: children.read_text().split(), COMMAND_S, "there is a process 1")
        return children.read_text().split()[0]

    def _groups(self) -> list[Path]:
        roots = [Path("/sys/fs/cgroup", name) for name in HIERARCHIES]
        return [root / self._group for root in roots if (root / "cgroup.procs").exists()]

    def _is_cleared(self) -> bool:
        for top in self._groups():
            for group in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
                _remove(group)
            _remove(top)
        return not any(group.exists() for group in self._groups())


def _remove(group: Path) -> None:
    try:
        group.rmdir()
    except OSError:
        pass  # its last process is still on its way out
