"""`warren volume …`: volumes, and their files from outside."""

import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import click

from warren.cli import display
from warren.cli.invocation import delete_each, json_option, rest
from warren.cli.machine import Machine
from warren.cli.rest import Rest
from warren.model import limits
from warren.model.errors import BadRequest, VolumeNotFound
from warren.model.volume import VOLUME_NAME
from warren.telemetry.redaction import printable

STANDARD = "-"
"""Standard input or output, in place of a file here."""
_PLACE = re.compile(rf"({VOLUME_NAME.pattern}):(.*)", re.DOTALL)


@click.group("volume")
def volume() -> None:
    """Files that outlive sandboxes and are shared by those that mount them."""


@volume.command()
@click.argument("name")
@click.option("--size", type=click.IntRange(min=1), metavar="MIB", help="Its size; default: WARREN_VOLUME_MB.")
@json_option
@click.pass_obj
def create(machine: Machine, name: str, size: int | None, as_json: bool) -> None:
    """Make an empty volume, and print its id."""
    with rest(machine) as server:
        made = server.post("/volumes", {"name": name} | ({"sizeMB": size} if size else {}))
    if as_json:
        display.as_json(made)
    else:
        click.echo(printable(made["volumeID"]))


@volume.command("list")
@json_option
@click.pass_obj
def list_(machine: Machine, as_json: bool) -> None:
    """List the volumes."""
    with rest(machine) as server:
        rows = server.get("/volumes")
    if as_json:
        display.as_json(rows)
        return
    display.table(
        ("ID", "NAME", "SIZE"),
        [(row["volumeID"], row["name"], f"{row['sizeMB']} MiB") for row in rows],
        nothing="There is no volume. Make one: warren volume create NAME",
    )


@volume.command()
@click.argument("which", metavar="VOLUME")
@json_option
@click.pass_obj
def info(machine: Machine, which: str, as_json: bool) -> None:
    """Show one volume, by name or id; with --json also the token that opens its files."""
    with rest(machine) as server:
        found = server.get(f"/volumes/{_id(server, which)}")
    if as_json:
        display.as_json(found)
        return
    display.fields((("id", found["volumeID"]), ("name", found["name"]), ("size", f"{found['sizeMB']} MiB")))


@volume.command()
@click.argument("names", metavar="VOLUME...", nargs=-1, required=True)
@json_option
@click.pass_obj
def delete(machine: Machine, names: tuple[str, ...], as_json: bool) -> int:
    """Delete volumes, by name or id, with all their files."""
    with rest(machine) as server:
        return delete_each(names, lambda name: server.delete(f"/volumes/{_id(server, name)}"), as_json=as_json)


@volume.command()
@click.argument("place", metavar="VOLUME[:PATH]")
@click.option("--depth", type=click.IntRange(1, limits.VOLUME_DEPTH_MAX), default=1, show_default=True)
@json_option
@click.pass_obj
def ls(machine: Machine, place: str, depth: int, as_json: bool) -> None:
    """List what is in a directory of a volume."""
    found = _PLACE.fullmatch(place)
    name, path = found.groups() if found else (place, "/")
    with rest(machine) as server:
        files = _files(server, name)
        rows = server.get(f"{files.path}/dir", {"path": path, "depth": depth}, files.headers)
    if as_json:
        display.as_json(rows)
        return
    display.table(
        ("MODE", "UID", "GID", "SIZE", "CHANGED", "PATH"),
        [
            (f"{row['mode']:04o}", row["uid"], row["gid"], row["size"], display.when(row["mtime"]), _shown(row))
            for row in rows
        ],
        nothing="There is nothing in it.",
    )


@volume.command()
@click.argument("source")
@click.argument("target")
@click.pass_obj
def cp(machine: Machine, source: str, target: str) -> None:
    """Copy a file between here and a volume: one of the two is VOLUME:PATH, the other a file, or - for a pipe.

    A target that ends with a slash, or is a directory here, gets the file under its own name. Directories that are
    missing in the volume are made.
    """
    origin, goal = _PLACE.fullmatch(source), _PLACE.fullmatch(target)
    with rest(machine) as server:
        if goal and not origin:
            _put(server, source, goal[1], goal[2])
        elif origin and not goal:
            _get(server, origin[1], origin[2], target)
        else:
            raise BadRequest("cannot tell what to copy where: exactly one of the two is VOLUME:PATH")


class _Files(NamedTuple):
    """Where the files of a volume are, and what opens them."""

    path: str
    headers: dict[str, str]


def _files(server: Rest, which: str) -> _Files:
    found = server.get(f"/volumes/{_id(server, which)}")
    return _Files(f"/volumecontent/{found['volumeID']}", {"Authorization": f"Bearer {found['token']}"})


def _id(server: Rest, which: str) -> str:
    for row in server.get("/volumes"):
        if which in (row["volumeID"], row["name"]):
            return row["volumeID"]
    raise VolumeNotFound(f"cannot find a volume with the id or name {which!r}; see `warren volume list`")


def _put(server: Rest, source: str, which: str, path: str) -> None:
    if path.endswith("/"):
        path += Path(source).name
    files = _files(server, which)
    with click.open_file(source, "rb") as content:
        known = os.fstat(content.fileno())
        size = known.st_size if stat.S_ISREG(known.st_mode) else None
        server.upload(f"{files.path}/file", content, size, files.headers, {"path": path, "force": True})


def _get(server: Rest, which: str, path: str, target: str) -> None:
    files = _files(server, which)
    content = server.download(f"{files.path}/file", {"path": path}, files.headers)
    if target == STANDARD:
        _write(content, sys.stdout.buffer)
        return
    file = Path(target) / Path(path).name if target.endswith("/") or Path(target).is_dir() else Path(target)
    partial = file.parent / f".{file.name}.{os.getpid()}"
    try:
        with partial.open("xb") as opened:
            _write(content, opened)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _write(content: Iterator[bytes], file: IO[bytes]) -> None:
    for chunk in content:
        file.write(chunk)
    file.flush()


def _shown(row: dict[str, Any]) -> str:
    mark = "/" if row["type"] == "directory" else f" -> {row['target']}" if row.get("target") else ""
    return f"{row['path']}{mark}"
