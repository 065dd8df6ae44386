"""What is known not to hold, or not wholly, and why. Whoever closes one removes its line and marks the probe."""

from dataclasses import dataclass

from tests.security.board.rows import RUNTIMES


@dataclass(frozen=True, slots=True)
class Gap:
    row: str
    why: str
    held: str = "in part"
    runtimes: tuple[str, ...] = RUNTIMES


GAPS = (
    Gap("A10", "`/proc/stat`, `loadavg`, `uptime` and `cpuinfo` are the host's", "not held", ("crun",)),
    Gap("B5", "up to 2 s pass before flushed rules are back"),
    Gap(
        "B9",
        "as with every shared domain: give browsers' sessions no cookie of the whole domain, or each project a domain",
        "not held",
    ),
    Gap("B10", "rules are by address", "not held"),
    Gap("C3", "the host's disk is thin-provisioned: keep it larger than what is promised"),
    Gap(
        "C5", "sixty sandboxes that all use their part fill the table: raise `net.netfilter.nf_conntrack_max` for more"
    ),
    Gap("D4", "metadata, names and the commands in sandboxes' logs are in clear in the database"),
    Gap("D6", "files lie in the open while their sandbox runs: encrypt that disk"),
    Gap("F1", "who is root and has the key rewrites all of it, seen only against a head noted elsewhere"),
)
