"""Holes that are known of the runtimes' versions, and what each would mean in this product.

Judged by the number that the program itself tells. A distribution mends holes under the old number: the finding names
its package, so that it can be looked up.
"""

import re
from dataclasses import dataclass

from warren.doctor.finding import Finding, Weight
from warren.doctor.machine import Machine
from warren.doctor.programs import runsc_version
from warren.settings import Settings

RELEASED = 1 << 30
"""Above the number of any release candidate."""
NVD = "https://www.cve.org/CVERecord?id="


@dataclass(frozen=True, slots=True)
class Advisory:
    """fixed: the first sound version of each series. since: the first with the hole. reaches: whether it does here."""

    id: str
    fixed: tuple[str, ...]
    meaning: str
    reaches: bool = False
    since: str = "0"

    @property
    def source(self) -> str:
        return NVD + self.id


NO_EXEC = "nothing is ever started in a running sandbox from outside (no `exec`), guestd does that inside"
FRESH_DEV = "/dev is a fresh file system of ours, there is no terminal and no console, the image decides nothing"
NO_KRUN = "the krun handler is never asked for"
NO_RESTORE = "neither crun nor runc ever restores a checkpoint here"

CRUN = (
    Advisory("CVE-2019-18837", ("0.10.5",), "an image whose links lead out of it writes to the host", reaches=True),
    Advisory("CVE-2022-27650", ("1.4.4",), NO_EXEC),
    Advisory("CVE-2025-24965", ("1.20",), NO_KRUN),
    Advisory("CVE-2026-84042", ("1.30",), NO_KRUN, since="1.29"),
    Advisory("CVE-2026-88264", ("1.30",), FRESH_DEV),
    Advisory("CVE-2026-88265", ("1.30",), FRESH_DEV),
)
RUNC = (
    Advisory("CVE-2019-5736", ("1.0.0-rc7",), NO_EXEC),
    Advisory("CVE-2021-30465", ("1.0.0-rc95",), "no volume is shared between sandboxes"),
    Advisory("CVE-2024-21626", ("1.1.12",), "the working directory is always /; " + NO_EXEC, since="1.0.0-rc93"),
    Advisory("CVE-2025-31133", ("1.2.8", "1.3.3", "1.4.0-rc.3"), FRESH_DEV),
    Advisory("CVE-2025-52565", ("1.2.8", "1.3.3", "1.4.0-rc.3"), FRESH_DEV),
    Advisory("CVE-2025-52881", ("1.2.8", "1.3.3", "1.4.0-rc.3"), "no volume is shared between sandboxes"),
    Advisory("CVE-2026-41579", ("1.3.6", "1.4.3", "1.5.0-rc.3"), FRESH_DEV),
    Advisory("CVE-2026-119101", ("1.3.7", "1.4.4", "1.5.3", "1.6.0-rc.2"), NO_RESTORE),
)
RUNSC = (
    Advisory("CVE-2018-16359", ("20180823",), "code inside renames files of the host", reaches=True),
    Advisory("CVE-2018-20168", ("20180822",), "code inside ends its own sandbox"),
    Advisory("CVE-2018-19333", ("20181101",), "a user inside becomes root inside, which `sudo` allows anyway"),
    Advisory("CVE-2025-2713", ("20250319",), "for users of this machine who may start runsc; sandboxes cannot"),
    # Mended in commit 573a9e73cf844f; the date is that of the first weekly release after the record was published.
    Advisory("CVE-2026-96812", ("20260928",), "images are read inside gVisor's kernel: no helper opens their devices"),
)


def crun(machine: Machine, settings: Settings) -> Finding:
    return _finding(machine, "crun", CRUN, _told(machine.output(settings.crun_path, "--version")))


def runc(machine: Machine, settings: Settings) -> Finding:
    """Not a runtime of Warren's; Docker brings it, and machines have both."""
    del settings
    return _finding(machine, "runc", RUNC, _told(machine.output("runc", "--version")))


def runsc(machine: Machine, settings: Settings) -> Finding:
    path = machine.which(settings.runsc)
    date = re.search(r"20\d{6}", (runsc_version(machine, path) if path else None) or "")
    return _finding(machine, "runsc", RUNSC, date[0] if date else None)


def _told(words: str | None) -> str | None:
    found = re.search(r"version (\d+(?:\.\d+)+(?:-rc\.?\d+)?)", words or "")
    return found[1] if found else None


def _finding(machine: Machine, program: str, known: tuple[Advisory, ...], version: str | None) -> Finding:
    open_ones = [advisory for advisory in known if version is not None and is_open(advisory, version)]
    reaching = [advisory for advisory in open_ones if advisory.reaches]
    shown = reaching or open_ones
    package = (machine.output("dpkg-query", "-W", "-f", "${Version}", program) or "").strip() if open_ones else ""
    return Finding(
        name=f"{program} advisories",
        found=_words(version, package, open_ones),
        ok=not reaching,
        why="; ".join(f"{advisory.id}: {advisory.meaning}" for advisory in shown) or "no hole of this version is known",
        remedy=f"install a newer {program}, unless your distribution has mended {package or 'its package'}: "
        + ", ".join(advisory.source for advisory in shown),
        weight=Weight.ADVISED,
    )


def _words(version: str | None, package: str, open_ones: list[Advisory]) -> str:
    if version is None:
        return "not installed"
    if not open_ones:
        return f"{version}: none known"
    holes = ", ".join(f"{advisory.id} (fixed in {' / '.join(advisory.fixed)})" for advisory in open_ones)
    return f"{version}{f', package {package}' if package else ''}: {holes}"


def is_open(advisory: Advisory, version: str) -> bool:
    """A series that has a fix of its own is judged by that one, any other by the newest."""
    mine = _ordered(version)
    if mine < _ordered(advisory.since):
        return False
    fixes = [_ordered(fix) for fix in advisory.fixed]
    return mine < next((fix for fix in fixes if fix[:2] == mine[:2]), max(fixes))


def _ordered(version: str) -> tuple[int, int, int, int]:
    numbers, _, candidate = version.partition("-rc")
    major, minor, patch, *_ = [*map(int, numbers.split(".")), 0, 0]
    return major, minor, patch, int(candidate.lstrip(".")) if candidate else RELEASED
