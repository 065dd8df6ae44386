"""`warren uninstall`: this machine as it was before, but for what the package system installed."""

import asyncio
import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

import click

from warren.cli.machine import Machine
from warren.engine.oci import uids
from warren.engine.oci.places import RUN_ROOT
from warren.model.errors import BadRequest, Unavailable
from warren.settings import Settings
from warren.telemetry.logs import configure

STATE_MARKS = ("token-seed", "warren.db", "engine", "audit")
CACHE_MARKS = ("bin", "templates")
"""A folder that has none of these is not one of ours, whatever a setting says."""
LEAST_DEPTH = 2
"""Parts of a path that may go: `/var` never does."""


@click.command()
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--keep-state", is_flag=True, help="Leave keys, database, audit log and templates where they are.")
@click.option("--keep-cache", is_flag=True, help="Leave what set-up built: runsc, guestd, template images.")
@click.pass_obj
def uninstall(machine: Machine, yes: bool, keep_state: bool, keep_cache: bool) -> None:
    """End every sandbox and remove every trace of this machine's server.

    That is: processes, interfaces, firewall rules, cgroups, the run folder, the state folder and the cache. Refuses
    while the server runs. Debian packages that set-up installed stay, and so does a database elsewhere.
    """
    if not machine.is_root:
        raise BadRequest("cannot remove Warren as an ordinary user: run as root, with sudo")
    settings = machine.settings()
    folders = _removable(settings, keep_state=keep_state, keep_cache=keep_cache)
    click.echo(f"Every sandbox of {settings.bridge} ends, and with it go its interfaces, rules and cgroups.")
    for folder in folders:
        click.echo(f"{folder} is removed with all that is in it.")
    if not yes:
        click.confirm("Go on?", abort=True)
    ended = asyncio.run(_clear(settings))
    for folder in _removable(settings, keep_state=keep_state, keep_cache=keep_cache):
        shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # not there, or another server's too
        (RUN_ROOT / uids.FOLDER).rmdir()
        RUN_ROOT.rmdir()
    click.echo(f"Done; {ended} sandboxes were running.")
    if settings.database_url:
        click.echo("The database that WARREN_DATABASE_URL names is left as it is.", err=True)


def _removable(settings: Settings, *, keep_state: bool, keep_cache: bool) -> list[Path]:
    return [
        *([] if keep_state else removable(settings.state_dir, STATE_MARKS)),
        *([] if keep_cache else removable(settings.cache_dir, CACHE_MARKS)),
    ]


def removable(folder: Path, marks: tuple[str, ...]) -> list[Path]:
    """The folder, if it is there. Raises BadRequest for one that looks like somebody else's."""
    if not folder.exists():
        return []
    if folder.is_symlink() or len(folder.parts) <= LEAST_DEPTH or not any((folder / mark).exists() for mark in marks):
        raise BadRequest(
            f"cannot remove {folder}: it does not look like a folder of Warren (no {', '.join(marks)} in it); "
            "correct WARREN_STATE_DIR or WARREN_CACHE_DIR, or remove it by hand"
        )
    return [folder]


async def _clear(settings: Settings) -> int:
    """The engine itself knows best what it leaves where; one that serves nobody takes everything with it."""
    from warren.engine.oci.engine import OciEngine  # costs a second

    configure("warning", json=False)
    if not (settings.state_dir.exists() or (RUN_ROOT / settings.bridge).exists()):
        return 0
    engine = OciEngine(replace(settings, pool_slots=0))
    try:
        await engine.open()
    except Unavailable as error:
        raise Unavailable(f"cannot uninstall while a server runs ({error.message}); stop it first") from error
    try:
        running = await engine.list()
        for placement in running:
            await engine.destroy(placement.id)
    finally:
        await engine.close()
    return len(running)
