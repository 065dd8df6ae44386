"""`warren sandbox logs`"""

import time
from datetime import datetime
from typing import Any

import click

from warren.cli import display
from warren.cli.invocation import json_option, rest, sandbox_argument, sandbox_path
from warren.cli.machine import Machine
from warren.cli.rest import Json, Rest, inner
from warren.model.errors import SandboxNotFound
from warren.telemetry.redaction import printable

POLL_S = 1.0
PAGE = 1000
PAGES_MAX = 1000


@click.command()
@sandbox_argument
@click.option("--follow", "-f", is_flag=True, help="Go on until the sandbox ends or Ctrl-C.")
@click.option("--level", type=click.Choice(["debug", "info", "warn", "error"]), help="This severe or more.")
@click.option("--search", metavar="TEXT", help="Only lines with this text.")
@json_option
@click.pass_obj
def logs(machine: Machine, sandbox_id: str, follow: bool, as_json: bool, **filters: str | None) -> None:
    """Print the log of a sandbox: what the server did with it, and what its guest reports."""
    with rest(machine) as server:
        reader = LogReader(server, sandbox_id, {name: value for name, value in filters.items() if value})
        while True:
            for entry in reader.fresh():
                click.echo(display.compact(entry) if as_json else _line(entry))
            if not follow or not _is_running(server, sandbox_id):
                return
            time.sleep(POLL_S)  # noqa: TID251 - nothing else runs in this program meanwhile


class LogReader:
    """Gives each entry once. The cursor names a millisecond, which can have entries from before and after a look."""

    def __init__(self, server: Rest, sandbox_id: str, filters: dict[str, Any]) -> None:
        self._server, self._path = server, f"/v2{sandbox_path(sandbox_id)}/logs"
        self._query = {**filters, "limit": PAGE}
        self._last_page: set[str] = set()

    def fresh(self) -> list[Json]:
        found: list[Json] = []
        for _ in range(PAGES_MAX):
            page: list[Json] = self._server.get(self._path, self._query)["logs"]
            new = [entry for entry in page if repr(entry) not in self._last_page]
            found += new
            if page:
                self._query["cursor"] = _milliseconds(page[-1]["timestamp"])
                self._last_page = {repr(entry) for entry in page}
            if len(page) < PAGE or not new:
                break
        return found


def _milliseconds(stamp: str) -> int:
    return int(datetime.fromisoformat(stamp).timestamp() * 1000)


def _line(entry: Json) -> str:
    details = inner(entry, "fields")
    head = (display.when(entry["timestamp"]), entry["level"].ljust(5), details.get("logger", ""), entry["message"])
    tail = (f"{name}={value}" for name, value in details.items() if name != "logger")
    return " ".join(printable(str(word)) for word in (*head, *tail))


def _is_running(server: Rest, sandbox_id: str) -> bool:
    try:
        server.get(sandbox_path(sandbox_id))
    except SandboxNotFound:
        return False
    return True
