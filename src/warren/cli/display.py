"""What is printed: one JSON value for programs, or a table for people. Sandboxes' text cannot draw on the terminal."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from warren.telemetry.redaction import printable

NOTHING = "-"
WIDTH_WITHOUT_TERMINAL = 500
"""Columns when nobody looks: wide enough that nothing is folded for `grep`."""


def as_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def compact(value: Any) -> str:
    """One line, for streams of values."""
    return json.dumps(value, ensure_ascii=False)


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], nothing: str) -> None:
    """`nothing` is said on stderr when there are no rows, so that a pipe gets none."""
    if not rows:
        click.echo(nothing, err=True)
        return
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        drawn.add_column(heading, overflow="fold", no_wrap=heading == "ID")
    for row in rows:
        drawn.add_row(*(Text(cell(value)) for value in row))
    console().print(drawn)


def fields(pairs: Sequence[tuple[str, object]]) -> None:
    drawn = Table(box=None, pad_edge=False, show_header=False)
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in pairs:
        drawn.add_row(name, Text(cell(value)))
    console().print(drawn)


def console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL, highlight=False)


def cell(value: object) -> str:
    if value is None or value in ("", [], (), {}):
        return NOTHING
    match value:
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(map(cell, cast("list[object]", value)))
        case dict():
            pairs = cast("dict[object, object]", value).items()
            return ", ".join(f"{printable(str(name))}={cell(inner)}" for name, inner in pairs)
        case _:
            return printable(str(value))


def when(stamp: str | None) -> str:
    """A time of the wire, to the second, in UTC."""
    parsed = _parsed(stamp)
    return NOTHING if parsed is None else parsed.strftime("%Y-%m-%d %H:%M:%SZ")


def left(stamp: str | None, now: datetime) -> str:
    """How long until then: `4m 59s`."""
    parsed = _parsed(stamp)
    if parsed is None:
        return NOTHING
    return span(max(0, int((parsed - now).total_seconds())))


def span(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {seconds:02}s" if minutes else f"{seconds}s"


def _parsed(stamp: str | None) -> datetime | None:
    try:
        return None if stamp is None else datetime.fromisoformat(stamp).astimezone(UTC)
    except ValueError:
        return None
