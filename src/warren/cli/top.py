"""`warren top`: what each sandbox uses, as a table that renews itself."""

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from warren.cli import display
from warren.cli.invocation import json_option, rest
from warren.cli.machine import Machine
from warren.cli.rest import Json, Rest
from warren.model import limits

MIB = 1024 * 1024
ORDERS = {"cpu": "cpuUsedPct", "memory": "memUsed", "disk": "diskUsed", "age": "ageSeconds"}


@click.command()
@click.option("--once", is_flag=True, help="Print the table once and end; so it is when the output is no terminal.")
@click.option("--every", type=click.FloatRange(0.5), default=2.0, show_default=True, metavar="SECONDS")
@click.option("--sort", type=click.Choice(list(ORDERS)), default="cpu", show_default=True, help="The most of it first.")
@json_option
@click.pass_obj
def top(machine: Machine, once: bool, every: float, sort: str, as_json: bool) -> None:
    """Show what running sandboxes use: cpu, memory, disk. Measured from outside every 5 seconds."""
    with rest(machine) as server:
        while True:
            rows = usage(server, datetime.now(UTC))
            rows.sort(key=lambda row: row[ORDERS[sort]] or 0, reverse=True)
            live = not (once or as_json) and sys.stdout.isatty()
            if as_json:
                display.as_json(rows)
                return
            if live:
                click.clear()
            _draw(rows)
            if not live:
                return
            time.sleep(every)  # noqa: TID251 - nothing else runs in this program meanwhile


def usage(server: Rest, now: datetime) -> list[Json]:
    """A row for each running sandbox; its numbers are None until it has been measured once."""
    rows = list(server.pages("/v2/sandboxes", {"state": "running"}))
    ids = [row["sandboxID"] for row in rows]
    measured: dict[str, Json] = {}
    for start in range(0, len(ids), limits.METRICS_BATCH_MAX):
        batch = ids[start : start + limits.METRICS_BATCH_MAX]
        measured |= server.get("/sandboxes/metrics", {"sandbox_ids": ",".join(batch)})["sandboxes"]
    return [_row(row, measured.get(row["sandboxID"], {}), now) for row in rows]


def _row(row: Json, sample: Json, now: datetime) -> Json:
    started = datetime.fromisoformat(row["startedAt"])
    numbers = ("cpuUsedPct", "cpuCount", "memUsed", "memTotal", "diskUsed", "diskTotal")
    return {
        "sandboxID": row["sandboxID"],
        "template": row.get("alias") or row["templateID"],
        "runtime": row.get("runtime"),
        "ageSeconds": max(0, int((now - started).total_seconds())),
        "endAt": row["endAt"],
        **{name: sample.get(name) for name in numbers},
    }


def _draw(rows: Sequence[Json]) -> None:
    now = datetime.now(UTC)
    display.table(
        ("ID", "TEMPLATE", "RUNTIME", "CPU", "MEMORY", "DISK", "AGE", "ENDS IN"),
        [
            (
                row["sandboxID"],
                row["template"],
                row["runtime"],
                None if row["cpuUsedPct"] is None else f"{row['cpuUsedPct']:.0f} % of {row['cpuCount']}",
                _share(row["memUsed"], row["memTotal"]),
                _share(row["diskUsed"], row["diskTotal"]),
                display.span(row["ageSeconds"]),
                display.left(row["endAt"], now),
            )
            for row in rows
        ],
        nothing="No sandbox is running.",
    )


def _share(used: Any, total: Any) -> str | None:
    return None if used is None else f"{used // MIB} of {total // MIB} MiB"
