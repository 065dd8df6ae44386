"""What a restart of the machine leaves of a stopped server: its state folder, and a boot id that is another one now."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tests import leaks
from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until
from warren.engine.oci.adoption import clear_run, release_frozen
from warren.engine.oci.cgroup import Cgroups
from warren.engine.oci.places import Places
from warren.settings import load

GROUPS = Path("/sys/fs/cgroup")


def reboot(server: LocalServer) -> None:
    server.kill()
    for line in leaks.snapshot(server.bridge, server.state)["processes"]:
        with suppress(ProcessLookupError):
            os.kill(int(line.split()[0]), signal.SIGKILL)
    groups = Cgroups(f"warren_{server.bridge}")
    for sandbox_id in groups.children():
        release_frozen(groups, sandbox_id)
    until(lambda: not leaks.snapshot(server.bridge, server.state)["processes"], 30, "its processes are gone")
    places = Places.of(load(server.settings))
    clear_run(places)
    for family in ("inet", "bridge"):
        subprocess.run(["nft", "delete", "table", family, f"warren_{server.bridge}"], check=False, capture_output=True)
    for name in os.listdir("/sys/class/net"):
        if name == server.bridge or name.startswith(f"{server.bridge}."):
            subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)
    for group in sorted(leaks.snapshot(server.bridge, server.state)["cgroups"], key=len, reverse=True):
        until(lambda group=group: _removed(Path(group)), 30, f"{group} is gone")
    places.boot.write_text("of another boot")


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
