"""What is where: `version`, `info`, `env`, `doctor`, `completion`."""

import shlex
from typing import Any

import click
from click.shell_completion import get_completion_class

from warren import __version__
from warren.cli import address, display
from warren.cli.invocation import json_option, server_address
from warren.cli.machine import Machine
from warren.cli.rest import Rest
from warren.model.errors import BadRequest, WarrenError
from warren.telemetry.redaction import printable

COMPLETION_VARIABLE = "_WARREN_COMPLETE"


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version."""
    if as_json:
        display.as_json({"version": __version__})
    else:
        click.echo(__version__)


@click.command()
@json_option
@click.pass_obj
def info(machine: Machine, as_json: bool) -> None:
    """Show which server is talked to, and whether it answers."""
    settings, server = machine.settings(), server_address(machine)
    found: dict[str, Any] = {
        "version": __version__,
        "apiUrl": server.api_url,
        "sandboxUrl": server.sandbox_url,
        "isLocal": server.is_local,
        "isUp": False,
        "hasKey": server.api_key is not None,
        "runningSandboxes": None,
    }
    if server.is_local:
        found |= {"domain": settings.public_domain, "stateDir": str(settings.state_dir), "runtime": settings.runtime}
    with Rest(server, machine.transport) as rest:
        found["isUp"] = rest.is_up()
        if found["isUp"] and found["hasKey"]:
            try:
                found["runningSandboxes"] = rest.count("/v2/sandboxes")
                found["sleep"] = _sleep(rest.get("/teams"))
                found["machine"] = rest.get("/machine")
            except WarrenError as error:
                found["error"] = error.message
    if as_json:
        display.as_json(found)
        return
    room = found.pop("machine", None)
    rows = [(_spaced(name), value) for name, value in found.items()]
    display.fields([*rows, *(_room(room) if room else [])])


def _room(room: Any) -> list[tuple[str, str]]:
    """What the server's machine has, and what of it is promised to sandboxes, those of other projects among them."""
    memory, disk = room["memoryMB"], room["diskMB"]
    holders = f"{room['sandboxes']} sandboxes" + (f", {room['spares']} of them spares" if room.get("spares") else "")
    return [
        ("memory used", f"{memory['total'] - memory['available']} of {memory['total']} MiB"),
        ("memory committed", f"{memory['committed']} of {memory['limit']} MiB, to {holders}"),
        ("disk used", f"{disk['total'] - disk['free']} of {disk['total']} MiB"),
        ("disk committed", f"{disk['committed']} of {disk['limit']} MiB"),
    ]


def _sleep(teams: Any) -> str | None:
    """What paused sandboxes and snapshots of the key's project take on disk."""
    kept = teams[0].get("snapshotUsage") if teams else None
    if not kept:
        return None
    taken = (kept["pausedBytes"] + kept["snapshotBytes"]) // 2**20
    return (
        f"{kept['pausedSandboxes']} paused on disk, {kept['snapshots']} snapshots: "
        f"{taken} of {kept['limitBytes'] // 2**20} MiB"
    )


@click.command()
@json_option
@click.pass_obj
def env(machine: Machine, as_json: bool) -> None:
    """Print what the E2B SDKs and CLI need to find this machine's server.

    \b
    eval "$(warren env)"
    """
    settings = machine.settings()
    access = machine.prepare(settings)
    api_url, sandbox_url = address.own_urls(settings)
    variables = {
        "E2B_API_KEY": access.api_key,
        "E2B_API_URL": api_url,
        "E2B_SANDBOX_URL": sandbox_url,
        "E2B_VOLUME_API_URL": api_url,
        "E2B_DOMAIN": settings.public_domain,
        "SSL_CERT_FILE": str(access.ca_bundle),
        "NODE_EXTRA_CA_CERTS": str(access.ca_bundle),
    }
    if as_json:
        display.as_json(variables)
        return
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")


@click.command()
@click.option("--fix", "mend", is_flag=True, help="First do what can be done here: packages, modules, builds; as root.")
@json_option
@click.pass_obj
def doctor(machine: Machine, mend: bool, as_json: bool) -> int:
    """Check whether this machine is fit for Warren."""
    from warren.doctor import as_json as findings_json  # reads the kernel's configuration on import
    from warren.doctor import fix, render, run, run_here

    findings = run(machine.settings())
    if mend:
        if not machine.is_root:
            raise BadRequest("cannot mend this machine as an ordinary user: run as root, with sudo")
        for done in fix(findings, run_here):
            how = "done" if done.ok else f"FAILED: {printable(done.said)}"
            click.echo(f"{done.finding}: {' '.join(done.command)}: {how}", err=True)
        findings = run(machine.settings())
    if as_json:
        click.echo(findings_json(findings))
    else:
        render(findings, display.console())
    return int(any(finding.blocks for finding in findings))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    eval "$(warren completion bash)"
    """
    complete = get_completion_class(shell)
    if complete is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(complete(ctx.find_root().command, {}, "warren", COMPLETION_VARIABLE).source())


def _spaced(name: str) -> str:
    """`apiUrl` as `api url`."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)
