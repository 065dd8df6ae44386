"""`warren secret …`. A value comes from a file or standard input, for every process here sees the arguments."""

import sys
from typing import IO
from urllib.parse import quote

import click

from warren.cli import display
from warren.cli.invocation import delete_each, json_option, pairs_option, rest
from warren.cli.machine import Machine
from warren.cli.rest import Json
from warren.model import limits
from warren.model.errors import BadRequest, SecretNotFound
from warren.telemetry.redaction import printable


@click.group("secret")
def secret() -> None:
    """Values that a project keeps: they go in and never come out again."""


@secret.command("set")
@click.argument("name")
@click.option("--file", "-f", "file", type=click.File("rb"), help="Where the value is, instead of standard input.")
@pairs_option("--metadata", "-m", help="A label; repeatable. Those of before stay when none is given.")
@json_option
@click.pass_obj
def set_(machine: Machine, name: str, file: IO[bytes] | None, metadata: dict[str, str], as_json: bool) -> None:
    """Keep a value under NAME, or a new version of it.

    It is read from standard input (asked for at a terminal) or from a file, without a line feed at its end.
    """
    body: Json = {"value": _value(file)} | ({"metadata": metadata} if metadata else {})
    with rest(machine) as server:
        try:
            kept = server.post(_path(name), body)
        except SecretNotFound:
            kept = server.post("/secrets", {"name": name, **body})
    if as_json:
        display.as_json(kept)
    else:
        click.echo(f"Secret {printable(kept['name'])} has version {kept['currentVersion']}.", err=True)


@secret.command("list")
@json_option
@click.pass_obj
def list_(machine: Machine, as_json: bool) -> None:
    """List the secrets, newest first, without their values."""
    with rest(machine) as server:
        rows = list(server.pages("/secrets", {}))
    if as_json:
        display.as_json(rows)
        return
    display.table(
        ("ID", "NAME", "VERSION", "CREATED", "UPDATED", "METADATA"),
        [
            (
                row["secretID"],
                row["name"],
                row["currentVersion"],
                display.when(row["createdAt"]),
                display.when(row["updatedAt"]),
                row.get("metadata"),
            )
            for row in rows
        ],
        nothing="There is no secret. Keep one: warren secret set NAME < FILE",
    )


@secret.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
@click.pass_obj
def delete(machine: Machine, names: tuple[str, ...], as_json: bool) -> int:
    """Delete secrets, by name or id, with all their versions."""
    with rest(machine) as server:
        return delete_each(names, lambda name: server.delete(_path(name)), as_json=as_json)


def _path(name: str) -> str:
    return f"/secrets/{quote(name, safe='')}"


def _value(file: IO[bytes] | None) -> str:
    """Raises BadRequest for what is no text, or none at all."""
    if file is None and sys.stdin.isatty():
        return click.prompt("Value", hide_input=True, err=True)
    read = (file or sys.stdin.buffer).read(limits.SECRET_VALUE_BYTES + len("\r\n") + 1)
    try:
        value = read.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BadRequest("cannot keep what is not UTF-8; encode it, for example with base64") from None
    if not value:
        raise BadRequest("cannot keep an empty value; give it on standard input or with --file")
    return value
