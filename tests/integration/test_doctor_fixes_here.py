"""`warren doctor --fix` on this machine, where a fix can be tried without harm to it.

Modules and Debian packages are not tried: a test would have to take them away from everybody first.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.local_server import warren_command
from warren.settings import load

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mends a machine")
BUILD_S = 100
LIMIT = """
import json
from warren.doctor import fix, kernel, run_here
from warren.doctor.machine import ThisMachine
open("/proc/sys/user/max_user_namespaces", "w").write("0")
before = kernel.user_namespaces(ThisMachine())
done = [(one.command, one.ok) for one in fix([before], run_here)]
print(json.dumps([before.ok, done, kernel.user_namespaces(ThisMachine()).ok]))
"""


def test_user_namespaces_are_allowed_again() -> None:
    """In a user namespace, which has a limit of its own."""
    argv = ["unshare", "--user", "--map-root-user", sys.executable, "-c", LIMIT]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
    assert json.loads(told) == [False, [[["sysctl", "-w", "user.max_user_namespaces=10000"], True]], True]


def test_a_missing_guestd_is_built_and_nothing_else_is_touched(tmp_path: Path) -> None:
    """Over a cache folder that has everything but guestd."""
    cache, real = tmp_path / "cache", load(os.environ).cache_dir
    (cache / "bin").mkdir(parents=True)
    for there in (*real.glob("*"), *real.glob("bin/runsc*")):
        if there.name not in ("bin", ".setup.lock"):
            (cache / there.relative_to(real)).symlink_to(there)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WARREN_")}
    environment |= {"WARREN_CACHE_DIR": str(cache), "WARREN_STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(
        [str(warren_command()), "doctor", "--fix", "--json"],
        env=environment, capture_output=True, text=True, timeout=BUILD_S, check=False,
    )  # fmt: skip
    mended = [line.partition(":")[0] for line in done.stderr.splitlines() if line.endswith(": done")]
    assert mended == ["guestd"], done.stderr
    assert {one["name"]: one["ok"] for one in json.loads(done.stdout)}["guestd"]
    assert os.access(cache / "bin" / "guestd", os.X_OK)
