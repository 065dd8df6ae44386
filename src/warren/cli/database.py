"""`warren db …`: the database itself, whether a server uses it or not."""

import asyncio
from pathlib import Path

import click

from warren.cli import display
from warren.cli.invocation import json_option
from warren.cli.machine import Machine

# Each command imports the store for itself: the database's libraries cost a second, and `warren --help` has no need.


@click.group("db")
def db() -> None:
    """Upgrade, back up and check the database."""


@db.command()
@json_option
@click.pass_obj
def upgrade(machine: Machine, as_json: bool) -> None:
    """Bring the schema up to date, as a server does when it starts."""
    from warren.store import upkeep

    before, after = asyncio.run(upkeep.upgrade(machine.settings().database))
    if as_json:
        display.as_json({"from": before, "to": after})
    elif before == after:
        click.echo(f"The schema is of version {after}, the newest.")
    else:
        click.echo(f"The schema is of version {after} now; it was {before or 'empty'}.")


@db.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@click.pass_obj
def backup(machine: Machine, file: Path, as_json: bool) -> None:
    """Copy the database into FILE, which must not exist. Servers go on meanwhile."""
    from warren.store import upkeep

    size = upkeep.backup(machine.settings().database, file)
    if as_json:
        display.as_json({"file": str(file.absolute()), "bytes": size})
    else:
        click.echo(f"{file}: {size} bytes")


@db.command()
@json_option
@click.pass_obj
def check(machine: Machine, as_json: bool) -> int:
    """Look whether the database is there, whole, of this version and free of contradictions. Exit code 1 if not."""
    from warren.store import upkeep

    condition = asyncio.run(upkeep.check(machine.settings().database))
    if as_json:
        display.as_json(
            {
                "ok": not condition.findings,
                "version": condition.version,
                "newest": condition.newest,
                "findings": list(condition.findings),
            }
        )
    else:
        for finding in condition.findings:
            click.echo(finding)
        if not condition.findings:
            click.echo(f"The database is sound; its schema is of version {condition.version}.")
    return 1 if condition.findings else 0
