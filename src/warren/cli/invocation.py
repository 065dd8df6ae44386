"""What commands share: the options, and the way to the server."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import click

from warren.cli import address, display
from warren.cli.address import Address
from warren.cli.machine import Machine
from warren.cli.rest import Rest
from warren.model.errors import BadRequest, Conflict, NotFound

COMPLETION_MAX = 100
"""Sandboxes offered on TAB."""

Handler = TypeVar("Handler", bound=Callable[..., Any])


def json_option(command: Handler) -> Handler:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def pairs_option(*names: str, help: str) -> Callable[[Handler], Handler]:
    """A repeatable NAME=VALUE."""
    return click.option(*names, multiple=True, metavar="NAME=VALUE", callback=_parse_pairs, help=help)


def sandbox_argument(command: Handler) -> Handler:
    return click.argument("sandbox_id", metavar="ID", shell_complete=complete_sandboxes)(command)


def sandbox_path(sandbox_id: str) -> str:
    if not sandbox_id:
        raise BadRequest("cannot use an empty sandbox id; see `warren sandbox list`")
    return f"/sandboxes/{quote(sandbox_id, safe='')}"


def server_address(machine: Machine) -> Address:
    return address.find(machine.environ, machine.settings())


def rest(machine: Machine) -> Rest:
    return Rest(server_address(machine), machine.transport)


def delete_each(names: Sequence[str], delete: Callable[[str], None], *, as_json: bool) -> int:
    """The exit code: 1 when one is not there or in use, and the others are deleted all the same."""
    deleted: list[str] = []
    failed: dict[str, str] = {}
    for name in names:
        try:
            delete(name)
            deleted.append(name)
        except (NotFound, Conflict) as error:
            failed[name] = error.message
    if as_json:
        display.as_json({"deleted": deleted, "failed": failed})
    for message in failed.values():
        click.echo(f"warren: cannot delete it: {message}", err=True)
    return 1 if failed else 0


def complete_sandboxes(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Running sandboxes, for the shell's TAB. Nothing when the server does not answer: no place for an error."""
    machine = ctx.find_object(Machine)
    if machine is None:
        return []
    try:
        with rest(machine) as server:
            rows = server.get("/v2/sandboxes", {"limit": COMPLETION_MAX})
    except Exception:  # whatever it is, the user is in the middle of typing
        return []
    return [row["sandboxID"] for row in rows if row["sandboxID"].startswith(begun)]


def _parse_pairs(_ctx: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in given:
        name, found, value = text.partition("=")
        if not found or not name:
            raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE")
        pairs[name] = value
    return pairs
