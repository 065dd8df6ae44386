"""`warren template idle`: how deep sandboxes of a template sleep while nobody uses them."""

from urllib.parse import quote

import click

from warren.cli import display
from warren.cli.invocation import json_option, rest
from warren.cli.machine import Machine
from warren.cli.rest import Json

_SECONDS = click.IntRange(min=1)


@click.command()
@click.argument("name")
@click.option("--freeze", "freezeAfter", type=_SECONDS, help="Seconds of idleness; then its processes stand still.")
@click.option("--reclaim", "reclaimAfter", type=_SECONDS, help="Then the memory that it can do without is taken back.")
@click.option("--disk", "diskAfter", type=_SECONDS, help="Then memory and files go to disk.")
@click.option("--never", is_flag=True, help="No step at all, whatever the server's settings say.")
@click.option("--default", "as_server", is_flag=True, help="As the server's settings say.")
@json_option
@click.pass_obj
def idle(machine: Machine, name: str, never: bool, as_server: bool, as_json: bool, **steps: int | None) -> None:
    """Set how deep the idle sandboxes of a template sleep; a step that is not given is left out.

    Without any option, show it.
    """
    wanted: Json = {step: seconds for step, seconds in steps.items() if seconds is not None}
    if bool(wanted) + never + as_server > 1:
        raise click.UsageError("give steps, or --never, or --default")
    path = f"/templates/{quote(name, safe='')}/settings/idle"
    with rest(machine) as server:
        if wanted or never:
            server.put(path, wanted)
        elif as_server:
            server.delete(path)
        now = server.get(path)
    if as_json:
        display.as_json(now)
        return
    display.fields([(step, _after(now.get(f"{step}After"))) for step in ("freeze", "reclaim", "disk")])
    if now["setBy"] == "server":
        click.echo("So say the server's settings; the template has no ladder of its own.", err=True)


def _after(seconds: int | None) -> str:
    return "never" if seconds is None else f"after {display.span(seconds)}"
