"""`warren key …`: through the server when it runs, else on the database itself."""

from typing import Protocol

import click

from warren.cli import display
from warren.cli.invocation import json_option, server_address
from warren.cli.machine import Machine
from warren.cli.rest import Json, Rest, inner
from warren.model.errors import BadRequest, KeyNotFound
from warren.telemetry.redaction import printable


@click.group("key")
def key() -> None:
    """Make, list and revoke API keys."""


@key.command()
@click.argument("name")
@json_option
@click.pass_obj
def create(machine: Machine, name: str, as_json: bool) -> None:
    """Make a key. It is shown now and never again: only its digest is stored."""
    made = _keyring(machine).create(name)
    if as_json:
        display.as_json(made)
        return
    click.echo(made["key"])
    click.echo("Keep it: it cannot be shown again.", err=True)


@key.command("list")
@json_option
@click.pass_obj
def list_(machine: Machine, as_json: bool) -> None:
    """List the keys in force."""
    rows = _keyring(machine).list()
    if as_json:
        display.as_json(rows)
        return
    display.table(
        ("ID", "NAME", "KEY", "CREATED", "LAST USED"),
        [
            (row["id"], row["name"], row["mask"], display.when(row["createdAt"]), display.when(row["lastUsed"]))
            for row in rows
        ],
        nothing="There is no key. Make one: warren key create NAME",
    )


@key.command()
@click.argument("which", metavar="ID|NAME")
@json_option
@click.pass_obj
def revoke(machine: Machine, which: str, as_json: bool) -> None:
    """Revoke a key: from the next request on it is unknown."""
    keyring = _keyring(machine)
    found = _pick(keyring.list(), which)
    keyring.revoke(found["id"])
    if as_json:
        display.as_json({"revoked": found["id"]})
    else:
        click.echo(f"Revoked {printable(found['name'])} ({found['mask']}).", err=True)


class Keyring(Protocol):
    """Rows have id, name, mask, createdAt and lastUsed; the one of `create` has `key` besides."""

    def create(self, name: str) -> Json: ...

    def list(self) -> list[Json]: ...

    def revoke(self, key_id: str) -> None: ...


class ServerKeyring:
    def __init__(self, server: Rest) -> None:
        self._server = server

    def create(self, name: str) -> Json:
        made = self._server.post("/api-keys", {"name": name})
        return _from_wire(made) | {"key": made["key"]}

    def list(self) -> list[Json]:
        return [_from_wire(row) for row in self._server.get("/api-keys")]

    def revoke(self, key_id: str) -> None:
        self._server.delete(f"/api-keys/{key_id}")


def _keyring(machine: Machine) -> Keyring:
    address = server_address(machine)
    server = Rest(address, machine.transport)
    if not address.is_local or (server.is_up() and address.api_key is not None):
        return ServerKeyring(server)
    from warren.cli.key_database import DatabaseKeyring  # the database's libraries cost a second

    return DatabaseKeyring(machine.settings())


def _pick(rows: list[Json], which: str) -> Json:
    found = [row for row in rows if row["id"] == which] or [row for row in rows if row["name"] == which]
    if not found:
        raise KeyNotFound(f"cannot find a key with the id or name {which!r}; see `warren key list`")
    if len(found) > 1:
        raise BadRequest(f"cannot tell which key {which!r} means: {len(found)} have that name; give the id")
    return found[0]


def _from_wire(row: Json) -> Json:
    mask = inner(row, "mask")
    shown = f"{mask.get('prefix', '')}{mask.get('maskedValuePrefix', '')}...{mask.get('maskedValueSuffix', '')}"
    return {
        "id": row["id"],
        "name": row["name"],
        "mask": shown,
        "createdAt": row.get("createdAt"),
        "lastUsed": row.get("lastUsed"),
    }
