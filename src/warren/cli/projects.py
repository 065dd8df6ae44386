"""`warren project …`: what projects may have. On the database itself, for no key of a project may change that."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, replace

import click

from warren.cli import display
from warren.cli.invocation import json_option
from warren.cli.machine import Machine
from warren.model.audit import Event, Kind, Outcome
from warren.model.errors import BadRequest
from warren.model.project import Project, ProjectLimits
from warren.settings import Settings

# The commands import the store for themselves: the database's libraries cost a second.

LARGEST = 2**31 - 1
"""What a column of the database holds."""


@click.group("project")
def project() -> None:
    """Show and change what projects may have."""


@project.command("list")
@json_option
@click.pass_obj
def list_(machine: Machine, as_json: bool) -> None:
    """List the projects with their limits."""
    rows = asyncio.run(_projects(machine.settings()))
    if as_json:
        display.as_json([{"name": row.name, **asdict(row.limits)} for row in rows])
        return
    headings = ("NAME", *(name.upper() for name in asdict(ProjectLimits())))
    display.table(headings, [(row.name, *asdict(row.limits).values()) for row in rows], nothing="There is no project.")


@project.command()
@click.argument("name")
@click.argument("changes", metavar="LIMIT=NUMBER...", nargs=-1, required=True)
@json_option
@click.pass_obj
def limit(machine: Machine, name: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Change limits of project NAME, such as snapshot_mb=102400 or paused_days=7, while the server is stopped.

    The change goes into the audit log, which a running server keeps to itself. Sandboxes go on meanwhile, and what is
    there already stays, however much it is.
    """
    changed = asyncio.run(_limited(machine.settings(), name, _parsed(changes)))
    if as_json:
        display.as_json({"name": name, **asdict(changed)})
    else:
        display.fields(list(asdict(changed).items()))


def _parsed(words: tuple[str, ...]) -> Mapping[str, int]:
    known, found = asdict(ProjectLimits()), dict[str, int]()
    for word in words:
        name, _, text = word.partition("=")
        if name not in known or not (text.isascii() and text.isdecimal()) or int(text) > LARGEST:
            raise BadRequest(f"cannot use {word!r}: write LIMIT=NUMBER, where LIMIT is one of {', '.join(known)}")
        found[name] = int(text)
    return found


async def _projects(settings: Settings) -> list[Project]:
    from warren.store.sql import SqlStore

    store = SqlStore(settings.database)
    await store.open()
    try:
        return list(await store.projects())
    finally:
        await store.close()


async def _limited(settings: Settings, name: str, changes: Mapping[str, int]) -> ProjectLimits:
    """Raises BadRequest for an unknown project, AuditUnavailable while a server writes the audit log."""
    from warren.audit.chain import Chain
    from warren.audit.folder import AuditFolder
    from warren.control.clock import SystemClock
    from warren.store.sql import SqlStore

    clock, store = SystemClock(), SqlStore(settings.database)
    with Chain(AuditFolder(settings.audit_dir), clock.now()) as chain:
        await store.open()
        try:
            found = next((row for row in await store.projects() if row.name == name), None)
            if found is None:
                raise BadRequest(f"cannot find a project {name!r}; see `warren project list`")
            limits = replace(found.limits, **changes)
            await store.set_limits(found.id, limits)
        finally:
            await store.close()
        about = f"project:{found.id}"
        event = Event(Kind.PROJECT_LIMITS, Outcome.ALLOWED, "local_root", about, found.id, via="cli", details=changes)
        chain.append([(clock.now(), event)])
        chain.sync()
        return limits
