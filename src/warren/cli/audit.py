"""`warren audit …`: on the files themselves, so that it needs no server and believes none."""

from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from warren.audit import reading
from warren.audit.folder import AuditFolder
from warren.audit.reading import Verdict
from warren.cli import display
from warren.cli.invocation import json_option
from warren.cli.machine import Machine
from warren.model.audit import Head, Kind, Outcome
from warren.telemetry.redaction import printable

LISTED = 1000
"""Records that `list` shows at most, unless told otherwise."""

_folder_option = click.option(
    "--folder", type=click.Path(path_type=Path), help="The log's folder; default: that of the state folder."
)


@click.group("audit")
def audit() -> None:
    """Look at the audit log: who changed what, what was refused, and whether the log is whole."""


class HeadType(click.ParamType[Head]):
    """COUNT:MAC, as `warren audit verify` prints it."""

    name = "COUNT:MAC"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Head:
        count, found, mac = str(value).partition(":")
        if not found or not count.isdecimal():
            self.fail(f"{value!r} is not of the form COUNT:MAC; `warren audit verify` prints one")
        return Head(int(count), mac)


@audit.command()
@_folder_option
@click.option("--head", type=HeadType(), help="A head noted earlier and kept elsewhere: the log must still contain it.")
@json_option
@click.pass_obj
def verify(machine: Machine, folder: Path | None, head: Head | None, as_json: bool) -> int:
    """Check every record of the log: nothing changed, taken out, moved, added or cut off.

    The exit code is 1 when something is wrong. Note the head that it prints on another machine: with --head a later
    check finds even a log that was replaced as a whole.
    """
    verdict = reading.verify(_folder(machine, folder), head)
    if as_json:
        display.as_json(_verdict_out(verdict))
    else:
        _explain(verdict)
    return int(bool(verdict.faults))


@audit.command("list")
@_folder_option
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in Kind]),
    metavar="KIND",
    multiple=True,
    help="Only these, for example sandbox.create; repeatable.",
)
@click.option("--outcome", type=click.Choice([outcome.value for outcome in Outcome]), help="Only this outcome.")
@click.option("--subject", metavar="NOUN:ID", help="Only about this, for example sandbox:ID.")
@click.option("--project", metavar="ID", help="Only of this project.")
@click.option("--key", metavar="ID", help="Only by this key.")
@click.option("--request", metavar="ID", help="Only of this request.")
@click.option("--since", type=click.DateTime(), metavar="TIME", help="Not before this time, in UTC.")
@click.option("--limit", type=click.IntRange(1), default=LISTED, show_default=True, help="The last so many.")
@json_option
@click.pass_obj
def list_(
    machine: Machine, folder: Path | None, since: datetime | None, limit: int, as_json: bool, **only: Any
) -> None:
    """List records, oldest first; with --json one object a line."""
    kinds = only.pop("kind")
    exact = {name: value for name, value in only.items() if value}

    def wanted(body: dict[str, Any]) -> bool:
        if kinds and body["kind"] not in kinds:
            return False
        if since is not None and datetime.fromisoformat(body["at"]) < since.replace(tzinfo=UTC):
            return False
        return all(body[name] == value for name, value in exact.items())

    rows = deque(reading.records(_folder(machine, folder), wanted), maxlen=limit)
    if as_json:
        for row in rows:
            click.echo(display.compact(row))
        return
    headings = ("NUMBER", "TIME", "WHAT", "OUTCOME", "RULE", "SUBJECT", "PROJECT", "KEY", "VIA", "DETAILS")
    names = ("kind", "outcome", "rule", "subject", "project", "key", "via", "details")
    display.table(
        headings,
        [(row["seq"], display.when(row["at"]), *(row[name] for name in names)) for row in rows],
        nothing="No record is like that.",
    )


def _folder(machine: Machine, given: Path | None) -> AuditFolder:
    return AuditFolder(given or machine.settings().audit_dir)


def _explain(verdict: Verdict) -> None:
    for fault in verdict.faults:
        place = f"{fault.file}:{fault.line}: " if fault.file else ""
        click.echo(f"{place}{fault.kind.value}: {printable(fault.message)}")
    said = "whole" if not verdict.faults else "NOT WHOLE"
    click.echo(f"{said}: {verdict.records} good records in {verdict.files} files, after record {verdict.base.count}")
    if verdict.repaired:
        click.echo(f"{verdict.repaired} torn ends were found by the server and written down: --kind audit.repaired")
    click.echo(f"head: {verdict.head.count}:{verdict.head.mac}")


def _verdict_out(verdict: Verdict) -> dict[str, Any]:
    return {
        "whole": not verdict.faults,
        "records": verdict.records,
        "files": verdict.files,
        "repaired": verdict.repaired,
        "base": f"{verdict.base.count}:{verdict.base.mac}",
        "head": f"{verdict.head.count}:{verdict.head.mac}",
        "faults": [
            {"kind": one.kind.value, "file": one.file, "line": one.line, "message": one.message}
            for one in verdict.faults
        ],
    }
