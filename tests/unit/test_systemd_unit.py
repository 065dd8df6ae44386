"""The unit is one that systemd understands, and has nothing that would break sandboxes."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "warren.service"
MAKES_A_MOUNT_NAMESPACE = (
    "PrivateTmp", "PrivateDevices", "PrivateMounts", "ProtectSystem", "ProtectHome", "ProtectKernelTunables",
    "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProtectProc", "ReadWritePaths",
    "ReadOnlyPaths", "InaccessiblePaths", "BindPaths", "TemporaryFileSystem", "RootDirectory", "DynamicUser",
    "StateDirectory",
)  # fmt: skip
EXPOSED_AT_MOST = 85
"""Of 100, as systemd counts; root that makes containers cannot have much less."""
INHERITED_BY_SANDBOXES = (
    "NoNewPrivileges", "RestrictSUIDSGID", "MemoryDenyWriteExecute", "ProtectHostname", "RestrictNamespaces",
    "ProtectClock", "OOMScoreAdjust", "SystemCallFilter",
)  # fmt: skip


def options() -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.M))


def test_nothing_in_it_breaks_sandboxes() -> None:
    assert not options().keys() & {*MAKES_A_MOUNT_NAMESPACE, *INHERITED_BY_SANDBOXES}
    assert options()["KillMode"] == "process", "a restart must not end sandboxes"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_in_force_what_the_hardening_page_says() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--json=short", f"--threshold={EXPOSED_AT_MOST}", str(UNIT)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"more exposed than before: {done.stderr}"
    held = {line["name"] for line in json.loads(done.stdout) if line["set"]}
    assert held >= {
        "LockPersonality=", "RestrictRealtime=", "SystemCallArchitectures=", "CapabilityBoundingSet=~CAP_SYS_MODULE",
        "CapabilityBoundingSet=~CAP_SYS_TIME", "CapabilityBoundingSet=~CAP_SYS_RAWIO", "RestrictAddressFamilies=~…",
        "CapabilityBoundingSet=~CAP_SYSLOG",
    }  # fmt: skip


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_understands_it(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"^ExecStart=.*$", "ExecStart=/bin/true", UNIT.read_text(), flags=re.M))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert ours == [], "systemd finds fault with the unit"
