"""`warren sandbox list|create|info|kill`"""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import click

from warren.cli import display
from warren.cli.invocation import complete_sandboxes, json_option, pairs_option, rest, sandbox_argument, sandbox_path
from warren.cli.machine import Machine
from warren.cli.rest import Json, inner
from warren.model.errors import SandboxNotFound
from warren.telemetry.redaction import printable


@click.group("sandbox")
def sandbox() -> None:
    """Create sandboxes, look at them, run things in them, kill them."""


@sandbox.command("list")
@pairs_option("--metadata", "-m", help="Only those with this metadata; repeatable.")
@click.option("--template", help="Only those of this template.")
@json_option
@click.pass_obj
def list_(machine: Machine, metadata: dict[str, str], template: str | None, as_json: bool) -> None:
    """List running and paused sandboxes, newest first."""
    query: dict[str, Any] = {}
    if metadata:
        query["metadata"] = urlencode(metadata, quote_via=quote)
    if template:
        query["template"] = template
    with rest(machine) as server:
        rows = list(server.pages("/v2/sandboxes", query))
    if as_json:
        display.as_json(rows)
        return
    now = datetime.now(UTC)
    display.table(
        ("ID", "TEMPLATE", "RUNTIME", "CPU", "MEMORY", "STATE", "STARTED", "ENDS IN", "METADATA"),
        [
            (
                row["sandboxID"],
                row.get("alias") or row["templateID"],
                row.get("runtime"),
                row["cpuCount"],
                f"{row['memoryMB']} MiB",
                row["state"],
                display.when(row["startedAt"]),
                display.left(row["endAt"], now) if row["state"] == "running" else None,
                row.get("metadata"),
            )
            for row in rows
        ],
        nothing="There is no sandbox. Create one: warren sandbox create",
    )


@sandbox.command()
@click.argument("template", default="base")
@click.option("--timeout", type=click.IntRange(min=1), metavar="SECONDS", help="How long it lives; default 300.")
@click.option("--runtime", help="runsc (gVisor) or crun; default: the template's, else the server's.")
@click.option("--cpu", type=click.IntRange(min=1), metavar="COUNT", help="CPUs.")
@click.option("--memory", type=click.IntRange(min=1), metavar="MIB", help="Memory in MiB.")
@click.option("--disk", type=click.IntRange(min=1), metavar="MIB", help="Writable disk in MiB.")
@click.option("--no-internet", is_flag=True, help="Nothing inside can reach the Internet.")
@pairs_option("--env", "-e", help="Environment variable of every process inside; repeatable.")
@pairs_option("--metadata", "-m", help="A label to find it by; repeatable.")
@json_option
@click.pass_obj
def create(machine: Machine, template: str, as_json: bool, **wanted: Any) -> None:
    """Create a sandbox from TEMPLATE (default: base) and print its id."""
    body: Json = {"templateID": template, "metadata": wanted["metadata"], "envVars": wanted["env"]}
    for option, name in {
        "timeout": "timeout",
        "runtime": "runtime",
        "cpu": "cpuCount",
        "memory": "memoryMB",
        "disk": "diskMB",
    }.items():
        if wanted[option] is not None:
            body[name] = wanted[option]
    if wanted["no_internet"]:
        body["allow_internet_access"] = False
    with rest(machine) as server:
        made = server.post("/v2/sandboxes", body)
    if as_json:
        display.as_json(made)
    else:
        click.echo(printable(str(made["sandboxID"])))


@sandbox.command()
@sandbox_argument
@json_option
@click.pass_obj
def info(machine: Machine, sandbox_id: str, as_json: bool) -> None:
    """Show one sandbox."""
    with rest(machine) as server:
        found = server.get(sandbox_path(sandbox_id))
    if as_json:
        display.as_json(found)
        return
    now, network = datetime.now(UTC), inner(found, "network")
    display.fields(
        (
            ("id", found["sandboxID"]),
            ("template", found.get("alias") or found["templateID"]),
            ("runtime", found.get("runtime")),
            ("state", found["state"]),
            ("health", found.get("health")),
            ("paused", _paused(found)),
            ("started", display.when(found["startedAt"])),
            ("ends", f"{display.when(found['endAt'])} (in {display.left(found['endAt'], now)})"),
            ("size", f"{found['cpuCount']} CPU, {found['memoryMB']} MiB memory, {found['diskSizeMB']} MiB disk"),
            ("internet", found.get("allowInternetAccess")),
            ("allow out", network.get("allowOut")),
            ("deny out", network.get("denyOut")),
            ("public host", f"PORT-{found['sandboxID']}.{found.get('domain') or ''}"),
            ("metadata", found.get("metadata")),
        )
    )


def _paused(found: Json) -> str | None:
    """What is kept of it, and where."""
    if found.get("pauseMode") is None:
        return None
    kept = "files" if found["pauseMode"] == "filesystem" else "memory and files"
    frozen = found.get("pausedIn") == "memory"
    return f"{kept}, " + ("frozen in memory: a restart of the machine ends it" if frozen else "on disk")


@sandbox.command()
@click.argument("sandbox_ids", metavar="ID...", nargs=-1, shell_complete=complete_sandboxes)
@click.option(
    "--all", "everything", is_flag=True, help="Every sandbox of the key's project, also those that are paused."
)
@json_option
@click.pass_obj
def kill(machine: Machine, sandbox_ids: tuple[str, ...], everything: bool, as_json: bool) -> int:
    """Kill sandboxes at once, with all that is in them."""
    if everything == bool(sandbox_ids):
        raise click.UsageError("name the sandboxes to kill, or give --all")
    killed: list[str] = []
    failed: dict[str, str] = {}
    with rest(machine) as server:
        if everything:
            sandbox_ids = tuple(row["sandboxID"] for row in server.pages("/v2/sandboxes", {}))
        for sandbox_id in sandbox_ids:
            try:
                server.delete(sandbox_path(sandbox_id))
                killed.append(sandbox_id)
            except SandboxNotFound as error:
                failed[sandbox_id] = error.message
    if as_json:
        display.as_json({"killed": killed, "failed": failed})
    for message in failed.values():
        click.echo(f"warren: cannot kill it: {message}", err=True)
    return 1 if failed and not everything else 0
