"""The machine's switch for passing packets on, which sandboxes need to reach anything.

It is off until somebody sets it, and then for all interfaces. So it is said when this server sets it, and put back
by the last server that leaves, unless it was on before.
"""

from pathlib import Path

import structlog

from warren.engine.oci.process import boot_id

SWITCH = Path("/proc/sys/net/ipv4/ip_forward")
MARKER = "forwarding-was-off"

log = structlog.get_logger(__name__)


def enable(run_root: Path) -> None:
    """Remember below `run_root` that it was off."""
    if SWITCH.read_text().strip() == "0":
        (run_root / MARKER).write_text(boot_id())
        SWITCH.write_text("1")
        log.warning("switched on net.ipv4.ip_forward; the last server to leave switches it off again")


def restore(run_root: Path) -> None:
    """Called by a server that has removed its own bridge; does nothing while another server has one."""
    marker = run_root / MARKER
    others = [entry for entry in run_root.iterdir() if entry.is_dir() and Path("/sys/class/net", entry.name).exists()]
    if marker.exists() and not others:
        if marker.read_text() == boot_id():
            SWITCH.write_text("0")
        marker.unlink()
