"""`warren sandbox pause|resume|fork|snapshot` and `warren snapshot list|delete`"""

from typing import Any
from urllib.parse import quote

import click

from warren.cli import display
from warren.cli.invocation import json_option, pairs_option, rest, sandbox_argument, sandbox_path
from warren.cli.machine import Machine
from warren.cli.rest import Json, inner
from warren.telemetry.redaction import printable

MIB = 1024 * 1024


@click.command()
@sandbox_argument
@click.option("--files-only", is_flag=True, help="Keep files, not memory: it boots again when it is resumed.")
@click.option("--durable", is_flag=True, help="Refuse a pause that would not outlive a restart of the machine.")
@json_option
@click.pass_obj
def pause(machine: Machine, sandbox_id: str, files_only: bool, durable: bool, as_json: bool) -> None:
    """Put a sandbox to sleep, with its processes and memory if its runtime can keep them."""
    with rest(machine) as server:
        server.post(f"{sandbox_path(sandbox_id)}/pause", {"memory": not files_only, "durable": durable})
    if as_json:
        display.as_json({"paused": sandbox_id})


@click.command()
@sandbox_argument
@click.option("--timeout", type=click.IntRange(min=1), default=300, help="How long it lives then; default 300.")
@click.option("--boot", is_flag=True, help="Start it from its files alone, without its memory.")
@json_option
@click.pass_obj
def resume(machine: Machine, sandbox_id: str, timeout: int, boot: bool, as_json: bool) -> None:
    """Wake a paused sandbox; give a running one more time."""
    body: Json = {"timeout": timeout} | ({"memory": False} if boot else {})
    with rest(machine) as server:
        awake = server.post(f"/v2{sandbox_path(sandbox_id)}/connect", body)
    if as_json:
        display.as_json(awake)


@click.command()
@sandbox_argument
@click.option("--count", type=click.IntRange(1, 20), default=1, help="How many copies; default 1.")
@click.option("--timeout", type=click.IntRange(min=1), default=300, help="How long they live; default 300.")
@pairs_option("--env", "-e", help="Environment variable of the copies; repeatable.")
@click.option("--inherit-env", is_flag=True, help="Let them have the environment of their source.")
@json_option
@click.pass_obj
def fork(machine: Machine, sandbox_id: str, as_json: bool, **wanted: Any) -> int:
    """Copy a running sandbox, and print the ids of the copies."""
    body: Json = {
        "count": wanted["count"],
        "timeout": wanted["timeout"],
        "envVars": wanted["env"],
        "inheritEnvVars": wanted["inherit_env"],
    }
    with rest(machine) as server:
        copies = server.post(f"{sandbox_path(sandbox_id)}/fork", body)
    if as_json:
        display.as_json(copies)
    failed = [inner(copy, "error") for copy in copies if "error" in copy]
    for copy in copies:
        if not as_json and "sandbox" in copy:
            click.echo(printable(str(inner(copy, "sandbox")["sandboxID"])))
    for error in failed:
        click.echo(f"warren: cannot make a copy: {printable(str(error.get('message')))}", err=True)
    return 1 if failed else 0


@click.command("snapshot")
@sandbox_argument
@click.option("--name", help="[NAMESPACE/]NAME[:TAG]; a name used before gets a new version.")
@click.option("--files-only", is_flag=True, help="Keep files, not memory.")
@json_option
@click.pass_obj
def take(machine: Machine, sandbox_id: str, name: str | None, files_only: bool, as_json: bool) -> None:
    """Take a snapshot of a running sandbox, and print its id: a template to create sandboxes from."""
    body: Json = ({"name": name} if name else {}) | ({"memory": False} if files_only else {})
    with rest(machine) as server:
        taken = server.post(f"{sandbox_path(sandbox_id)}/snapshots", body)
    if as_json:
        display.as_json(taken)
    else:
        click.echo(printable(str(taken["snapshotID"])))


@click.group("snapshot")
def snapshot() -> None:
    """Snapshots of sandboxes: `warren sandbox snapshot` takes one, `warren sandbox create ID` starts from it."""


@snapshot.command("list")
@click.option("--sandbox", "sandbox_id", metavar="ID", help="Only those of this sandbox.")
@click.option("--name", help="Only those that hold this name.")
@json_option
@click.pass_obj
def list_(machine: Machine, sandbox_id: str | None, name: str | None, as_json: bool) -> None:
    """List snapshots, newest first."""
    query = {key: value for key, value in {"sandboxID": sandbox_id, "name": name}.items() if value}
    with rest(machine) as server:
        rows = list(server.pages("/snapshots", query))
    if as_json:
        display.as_json(rows)
        return
    display.table(
        ("ID", "KEEPS", "SIZE", "OF SANDBOX", "TAKEN"),
        [
            (
                row["snapshotID"],
                "memory and files" if row.get("mode") == "full" else "files",
                f"{int(row.get('sizeBytes') or 0) // MIB} MiB",
                row.get("sandboxID"),
                display.when(row["createdAt"]) if row.get("createdAt") else None,
            )
            for row in rows
        ],
        nothing="There is no snapshot. Take one: warren sandbox snapshot ID",
    )


@snapshot.command("delete")
@click.argument("snapshot_ids", metavar="ID...", nargs=-1, required=True)
@json_option
@click.pass_obj
def delete(machine: Machine, snapshot_ids: tuple[str, ...], as_json: bool) -> None:
    """Delete snapshots; what was started from them goes on."""
    with rest(machine) as server:
        for snapshot_id in snapshot_ids:
            server.delete(f"/templates/{quote(snapshot_id, safe='')}")
    if as_json:
        display.as_json({"deleted": list(snapshot_ids)})
