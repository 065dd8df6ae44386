"""`warren pool …`"""

import click

from warren.cli import display
from warren.cli.invocation import json_option, rest
from warren.cli.machine import Machine


@click.group("pool")
def pool() -> None:
    """Spare sandboxes, started ahead so that creating one takes milliseconds."""


@pool.command("list")
@json_option
@click.pass_obj
def list_(machine: Machine, as_json: bool) -> None:
    """List what is kept ready, of the templates that you can use."""
    with rest(machine) as server:
        rows = server.get("/pools")
    if as_json:
        display.as_json(rows)
        return
    display.table(
        ("TEMPLATE", "RUNTIME", "CPU", "MEMORY", "DISK", "READY", "WANTED"),
        [
            (
                row["names"] or row["templateID"],
                row["runtime"],
                row["cpuCount"],
                f"{row['memoryMB']} MiB",
                f"{row['diskSizeMB']} MiB",
                row["ready"],
                row["wanted"],
            )
            for row in rows
        ],
        nothing="The pool is empty, and nothing asks for it. WARREN_POOL says what is always kept.",
    )
