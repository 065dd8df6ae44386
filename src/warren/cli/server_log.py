"""`warren logs`: the server's own log, from the file that it writes (`WARREN_LOG_FILE`)."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import click

from warren.cli import display
from warren.cli.invocation import json_option
from warren.cli.machine import Machine
from warren.model.errors import NotFound
from warren.telemetry.logs import LEVELS
from warren.telemetry.redaction import printable

POLL_S = 0.5
SHOWN = 200
_HEAD = ("timestamp", "level", "logger", "event")
Json = dict[str, Any]


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--lines", "-n", type=click.IntRange(0), default=SHOWN, show_default=True, help="The last so many.")
@click.option("--level", type=click.Choice(LEVELS), help="This severe or more.")
@click.option("--request", metavar="ID", help="Only of this request.")
@click.option("--sandbox", metavar="ID", help="Only about this sandbox.")
@click.option("--search", metavar="TEXT", help="Only lines with this text.")
@click.option("--since", type=click.DateTime(), metavar="TIME", help="Not before this time, in UTC.")
@json_option
@click.pass_obj
def logs(machine: Machine, follow: bool, lines: int, as_json: bool, **filters: Any) -> None:
    """Print the server's log. What a sandbox logs is in `warren sandbox logs`."""
    settings = machine.settings()
    if not settings.log_file:
        raise NotFound(
            "cannot find the server's log: it goes to the server's standard error (`journalctl -u warren` under "
            "systemd); set WARREN_LOG_FILE for the server and here"
        )
    reader, wanted = LogFile(Path(settings.log_file)), matcher(**filters)
    fresh = deque((entry for entry in reader.old() if wanted(entry)), maxlen=lines)
    while True:
        for entry in fresh:
            click.echo(display.compact(entry) if as_json else _line(entry))
        if not follow:
            return
        time.sleep(POLL_S)  # noqa: TID251 - nothing else runs in this program meanwhile
        fresh = deque(entry for entry in reader.fresh() if wanted(entry))


def matcher(
    level: str | None, request: str | None, sandbox: str | None, search: str | None, since: datetime | None
) -> Callable[[Json], bool]:
    levels = LEVELS if level is None else LEVELS[LEVELS.index(level) :]
    exact = {name: value for name, value in (("request", request), ("sandbox", sandbox)) if value}
    start = "" if since is None else since.replace(tzinfo=UTC).isoformat()[:19]

    def wanted(entry: Json) -> bool:
        return (
            (level is None or entry.get("level") in (*levels, "critical"))
            and all(entry.get(name) == value for name, value in exact.items())
            and str(entry.get("timestamp", "")) >= start
            and (search is None or search in json.dumps(entry, ensure_ascii=False))
        )

    return wanted


class LogFile:
    """Gives each entry once, also over the file's rotation: `log`, then `log.1`, and so on to the oldest."""

    def __init__(self, path: Path) -> None:
        self._path, self._inode, self._position = path, 0, 0

    def old(self) -> Iterator[Json]:
        """What is there, oldest first. Raises NotFound when there is nothing."""
        kept = self._path.parent.glob(f"{self._path.name}.*")
        for file in sorted((file for file in kept if file.suffix[1:].isdecimal()), key=_age, reverse=True):
            yield from _entries(file.read_bytes())
        if not self._path.exists():
            raise NotFound(f"cannot find the server's log at {self._path}: has the server been started with it?")
        yield from self.fresh()

    def fresh(self) -> Iterator[Json]:
        """Whole lines that came since the last call."""
        try:
            with self._path.open("rb") as file:
                inode = self._path.stat().st_ino
                if inode != self._inode:
                    self._inode, self._position = inode, 0
                file.seek(self._position)
                content = file.read()
        except FileNotFoundError:  # between two files
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._position += len(whole)
        yield from _entries(whole)


def _age(file: Path) -> int:
    return int(file.suffix[1:])


def _entries(content: bytes) -> Iterator[Json]:
    for line in content.splitlines():
        try:
            parsed: object = json.loads(line)
        except ValueError:
            continue  # cut by a crash
        if isinstance(parsed, dict):
            yield cast("Json", parsed)


def _line(entry: Json) -> str:
    head = (display.when(entry.get("timestamp")), str(entry.get("level", "")).ljust(7), entry.get("event", ""))
    tail = [f"{name}={value}" for name, value in entry.items() if name not in (*_HEAD, "exception")]
    trace = str(entry.get("exception", "")).splitlines()
    return "\n".join([" ".join(printable(str(word)) for word in (*head, *tail)), *map(printable, trace)])
