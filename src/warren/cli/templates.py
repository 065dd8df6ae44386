"""`warren template …`"""

from urllib.parse import quote

import click

from warren.cli import display
from warren.cli.invocation import json_option, rest
from warren.cli.machine import Machine
from warren.cli.template_build import build
from warren.cli.template_files import export, import_, prune
from warren.model.errors import Conflict, NotFound


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
    deleted: list[str] = []
    failed: dict[str, str] = {}
    with rest(machine) as server:
        for name in names:
            try:
                server.delete(f"/templates/{quote(name, safe='')}")
                deleted.append(name)
            except (NotFound, Conflict) as error:
                failed[name] = error.message
    if as_json:
        display.as_json({"deleted": deleted, "failed": failed})
    for message in failed.values():
        click.echo(f"warren: cannot delete it: {message}", err=True)
    return 1 if failed else 0


for command in (build, import_, export, prune):
    template.add_command(command)
