"""The programs and files that set-up brings: pure questions about a Machine."""

import re

from warren.doctor.finding import Finding, Weight
from warren.doctor.machine import Machine
from warren.settings import Settings

OLDEST_RUNSC = 20260905
"""Date of the gVisor that set-up builds; scripts/pinned/runsc.txt names the same one."""
OLDEST_CRUN = (1, 8)
"""Debian 12's; what the bundles are tried with."""
SETUP = "run scripts/setup (`make setup`)"


def crun(machine: Machine, settings: Settings) -> Finding:
    text = machine.output(settings.crun_path, "--version") or ""
    found = re.search(r"version (\d+)\.(\d+)(\S*)", text)
    return Finding(
        name="crun",
        found=f"{found[1]}.{found[2]}{found[3]}" if found else None,
        ok=found is not None and (int(found[1]), int(found[2])) >= OLDEST_CRUN,
        why="the fast tier: containers on this machine's kernel, in 10 ms",
        remedy="apt-get install crun, or set WARREN_CRUN_PATH",
    )


def runsc(machine: Machine, settings: Settings) -> Finding:
    path = machine.which(settings.runsc)
    found = runsc_version(machine, path) if path else None
    date = re.search(r"20\d{6}", found or "")
    return Finding(
        name="runsc (gVisor)",
        found=found,
        ok=date is not None and int(date[0]) >= OLDEST_RUNSC,
        why="the default runtime: each sandbox has a kernel of its own, in user space",
        remedy=f"{SETUP}, which builds one of {OLDEST_RUNSC}; older ones fail on current kernels",
    )


def runsc_version(machine: Machine, path: str) -> str | None:
    stamped = re.search(r"version (\S*20\d{6}\S*)", machine.output(path, "--version") or "")
    return stamped[1] if stamped else machine.go_module_version(path, "gvisor.dev/gvisor")


def tools(machine: Machine) -> Finding:
    needed = (
        "ip",
        "nft",
        "mount",
        "losetup",
        "mkfs.erofs",
        "mkfs.ext4",
        "unshare",
        "setpriv",
        "skopeo",
        "umoci",
        "zstd",
    )
    missing = [name for name in needed if machine.which(name) is None]
    return Finding(
        name="tools",
        found=", ".join(name for name in needed if name not in missing) or None,
        ok=not missing,
        why="make images, file systems and networks",
        remedy=f"{SETUP}; missing: {', '.join(missing)}" if missing else SETUP,
    )


def guestd(machine: Machine, settings: Settings) -> Finding:
    there = machine.which(settings.guestd) is not None
    return Finding(
        name="guestd",
        found=settings.guestd if there else None,
        ok=there,
        why="the first process of each sandbox: runs commands, moves files",
        remedy=f"{SETUP}, or set WARREN_GUESTD_PATH",
    )


def base_template(machine: Machine, settings: Settings) -> Finding:
    built = [name for name in machine.templates(str(settings.cache_dir / "templates")) if name.startswith("base-")]
    return Finding(
        name="template base",
        found=", ".join(built) or None,
        ok=bool(built),
        why="what a sandbox is made of when nobody asks for another",
        remedy=SETUP,
    )


def local_names(machine: Machine) -> Finding:
    works = machine.resolves("49983-probe.e2b.localhost")
    return Finding(
        name="*.localhost",
        found="resolves to this machine" if works else None,
        ok=works,
        why="sandboxes' public URLs open in every program of this machine",
        remedy="apt-get install libnss-myhostname, or set WARREN_DOMAIN to a domain with wildcard DNS",
        weight=Weight.ADVISED,
    )
