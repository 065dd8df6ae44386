"""Findings for people (a table) and for programs (JSON)."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from warren.doctor.finding import Finding, Weight


def render(findings: Sequence[Finding], console: Console) -> None:
    todo = any(not finding.ok for finding in findings)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("requirement", no_wrap=True)
    table.add_column("found", overflow="fold", ratio=2)
    table.add_column("why it matters", ratio=3)
    if todo:  # no empty column on a machine that has everything
        table.add_column("what to do", ratio=3)
    for finding in findings:
        row = [_mark(finding), finding.name, finding.found or "nothing", finding.why]
        table.add_row(*row, *([] if finding.ok or not todo else [finding.remedy]))
    console.print(table)


def _mark(finding: Finding) -> Text:
    if finding.ok:
        return Text("ok", style="green")
    return Text("no", style="bold red") if finding.weight is Weight.REQUIRED else Text("hm", style="yellow")


def as_json(findings: Sequence[Finding]) -> str:
    return json.dumps([asdict(finding) | {"weight": finding.weight.value} for finding in findings], indent=2)
