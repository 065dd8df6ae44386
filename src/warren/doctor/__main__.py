"""`python -m warren.doctor [--problems-only]`, for set-up, which may run before the CLI can."""

import os
import sys

from rich.console import Console

from warren.doctor import render, run
from warren.settings import load


def main() -> int:
    findings = run(load(os.environ))
    shown = [finding for finding in findings if not finding.ok] if "--problems-only" in sys.argv[1:] else findings
    if shown:
        render(shown, Console())
    return int(any(finding.blocks for finding in findings))


if __name__ == "__main__":
    raise SystemExit(main())
