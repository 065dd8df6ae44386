"""The reference pages say what the code has: no more, no less."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
from prometheus_client import Metric

from warren.cli.app import root
from warren.settings import Settings
from warren.telemetry.meters import Meters

PAGES = Path(__file__).parents[2] / "docs" / "reference"
WRITE = "run `python -m tests.tidy.test_reference_pages` to write the pages anew"


def test_every_command_and_option_is_in_the_manual() -> None:
    assert (PAGES / "cli.md").read_text() == cli_page(), WRITE


def test_every_metric_is_described_with_its_labels() -> None:
    assert (PAGES / "metrics.md").read_text() == metrics_page(), WRITE


def test_every_setting_is_described() -> None:
    page = (PAGES / "settings.md").read_text()
    named = set(re.findall(r"`WARREN_(\w+)`", page))
    there = {field.name.upper() for field in fields(Settings)}
    assert there <= named
    assert named - there == set()


METRICS_HEAD = """# Metrics

What `GET /metrics` answers, for Prometheus: without a key to a direct request from this machine, with any key
otherwise. Written from the code; a test compares the two. Labels have few values, all of them ours: nothing that a
client or a sandbox says becomes one, but for the route's template, never its path. A histogram `x` is exposed as
`x_bucket`, `x_sum` and `x_count`.

| Metric | Type | Labels | What |
|---|---|---|---|
"""


def metrics_page() -> str:
    rows = sorted(
        f"| `{_exposed(one)}` | {one.type} | {labels} | {one.documentation} |\n" for one, labels in _metrics()
    )
    return METRICS_HEAD + "".join(rows)


def _metrics() -> Iterator[tuple[Metric, str]]:
    for collector in list(Meters()._registry._collector_to_names):
        for metric in collector.collect():
            yield metric, ", ".join(f"`{label}`" for label in collector._labelnames)


def _exposed(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def cli_page() -> str:
    head = "# Command line\n\nWritten from the command tree; a test compares the two. `--help` says the same.\n"
    return head + "".join(_section(command, path) for path, command in sorted(_commands(root, ("warren",))))


def _commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def _section(command: click.Command, path: tuple[str, ...]) -> str:
    context = click.Context(command, info_name=" ".join(path), max_content_width=100, terminal_width=100)
    words = " ".join(path)
    usage = " ".join([words, *command.collect_usage_pieces(context)])
    help_text = (command.help or "").replace("\b\n", "").strip()
    options = [option for option in (parameter.get_help_record(context) for parameter in command.params) if option]
    rows = "".join(f"| `{name}` | {_cell(text)} |\n" for name, text in options)
    table = f"\n| Option | What |\n|---|---|\n{rows}" if rows else ""
    return f"\n## {words}\n\n`{usage}`\n\n{_paragraphs(help_text)}\n{table}"


def _paragraphs(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    (PAGES / "cli.md").write_text(cli_page())
    (PAGES / "metrics.md").write_text(metrics_page())
