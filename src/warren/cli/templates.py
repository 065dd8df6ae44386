"""`warren template …`"""

from urllib.parse import quote

import click

from warren.cli import display
from warren.cli.invocation import delete_each, json_option, rest
from warren.cli.machine import Machine
from warren.cli.template_build import build
from warren.cli.template_files import export, import_, prune
from warren.cli.template_idle import idle


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


@template.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
@click.pass_obj
def delete(machine: Machine, names: tuple[str, ...], as_json: bool) -> int:
    """Delete templates, by name or id, with all their builds."""
    with rest(machine) as server:
        return delete_each(names, lambda name: server.delete(f"/templates/{quote(name, safe='')}"), as_json=as_json)


for command in (build, import_, export, prune, idle):
    template.add_command(command)
