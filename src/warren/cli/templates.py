"""`warren template …`"""

import click

from warren.cli import display
from warren.cli.invocation import json_option, rest
from warren.cli.machine import Machine


@click.group("template")
def template() -> None:
    """What sandboxes are made from."""


@template.command("list")
@json_option
@click.pass_obj
def list_(machine: Machine, as_json: bool) -> None:
    """List the templates that you can use."""
    with rest(machine) as server:
        rows = server.get("/templates")
    if as_json:
        display.as_json(rows)
        return
    display.table(
        ("ID", "NAMES", "CPU", "MEMORY", "DISK", "CREATED"),
        [
            (
                row["templateID"],
                row.get("names") or row.get("aliases"),
                row["cpuCount"],
                f"{row['memoryMB']} MiB",
                f"{row['diskSizeMB']} MiB",
                display.when(row.get("createdAt")),
            )
            for row in rows
        ],
        nothing="There is no template. Build the built-in ones: make setup",
    )
