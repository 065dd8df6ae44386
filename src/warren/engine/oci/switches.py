"""Switches of the machine's kernel that sandboxes need set.

They are for all of the machine. So it is said when this server sets one, and put back by the last server that leaves,
unless it was so before.
"""

from dataclasses import dataclass
from pathlib import Path

import structlog

from warren.engine.oci.process import boot_id

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Switch:
    """What `name` (below /proc/sys) has to be at the least. `marker` keeps what it was."""

    name: str
    least: int
    marker: str
    needed: bool

    @property
    def path(self) -> Path:
        return Path("/proc/sys", self.name)


SWITCHES = (
    # Passes packets on, without which sandboxes reach nothing. It is off until somebody sets it.
    Switch("net/ipv4/ip_forward", 1, "forwarding-was-off", needed=True),
    # Open files of all users together, root excepted: one crun sandbox has memory for that many. They are counted as
    # its memory, so this limit adds nothing; systemd lifts it on every machine that it starts.
    Switch("fs/file-max", 2**63 - 1, "files-were-limited", needed=False),
    # Processes and threads of all users together. The least a machine has, 32,768, is what four full gVisor sandboxes
    # may start; this is the most there is on 64 bits (proc_sys_kernel(5)), and what systemd sets.
    Switch("kernel/pid_max", 2**22, "pids-were-few", needed=False),
)


def set_all(run_root: Path) -> None:
    """Remember below `run_root` what they were."""
    for switch in SWITCHES:
        if int(was := switch.path.read_text()) >= switch.least:
            continue
        try:
            (run_root / switch.marker).write_text(f"{boot_id()} {was.strip()}")
            switch.path.write_text(str(switch.least))
        except OSError as error:
            (run_root / switch.marker).unlink(missing_ok=True)
            if switch.needed:
                raise
            log.warning("cannot set a switch of the kernel", switch=switch.name, error=error.strerror)
        else:
            log.warning("set a switch of the kernel; the last server to leave puts it back", switch=switch.name)


def restore(run_root: Path) -> None:
    """Called by a server that has removed its own bridge; does nothing while another server has one."""
    if any(entry.is_dir() and Path("/sys/class/net", entry.name).exists() for entry in run_root.iterdir()):
        return
    for switch in SWITCHES:
        marker = run_root / switch.marker
        if marker.exists():
            boot, _, was = marker.read_text().partition(" ")
            if boot == boot_id():
                switch.path.write_text(was or "0")  # an earlier version wrote no more than when
            marker.unlink()
