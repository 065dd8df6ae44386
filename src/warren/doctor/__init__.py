"""Is this machine fit for Warren? `warren doctor` and set-up ask here."""

from warren.doctor.checks import examine
from warren.doctor.finding import Finding, Weight
from warren.doctor.fixes import Fix, fix, run_here
from warren.doctor.machine import ThisMachine
from warren.doctor.table import as_json, render
from warren.settings import Settings

__all__ = ["Finding", "Fix", "Weight", "as_json", "examine", "fix", "render", "run", "run_here"]


def run(settings: Settings | None = None) -> list[Finding]:
    """Each requirement with what this machine has of it. Blocks for about 100 ms; needs no root to answer."""
    return examine(ThisMachine(), settings or Settings())
