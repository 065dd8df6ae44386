"""The root of the command line, and how its mistakes and failures end: one line on stderr and an exit code."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import click

from warren import __version__
from warren.cli import (
    about,
    audit,
    database,
    keys,
    pools,
    projects,
    sandbox_logs,
    sandbox_run,
    sandboxes,
    secrets,
    server_log,
    sleep,
    templates,
    top,
    uninstall,
    volumes,
)
from warren.cli.machine import Machine
from warren.model.errors import BadRequest, WarrenError

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="warren")
def root() -> None:
    """Warren: AI agents and the code they write, in micro-containers on your own machine."""


@root.command()
@click.option("--domain", help="Public names are PORT-ID.DOMAIN and api.DOMAIN; WARREN_DOMAIN.")
@click.option("--tls-cert", metavar="FILE", help="A certificate for *.DOMAIN, with its chain; one is made without.")
@click.option("--tls-key", metavar="FILE", help="Its key.")
@click.option("--stop-sandboxes-on-exit", is_flag=True, help="End all its sandboxes when the server is told to stop.")
@click.pass_obj
def serve(machine: Machine, **options: Any) -> None:
    """Run the server in the foreground, until Ctrl-C. Sandboxes live on while it is away, unless told otherwise.

    Its settings are the WARREN_* variables; see docs or `warren info`. Options come before them.
    """
    settings = machine.settings()
    if not machine.is_root:
        raise BadRequest("cannot run sandboxes as an ordinary user: start the server as root, with sudo")
    machine.serve(replace(settings, **{name: value for name, value in options.items() if value}))


for command in (
    about.doctor,
    database.db,
    audit.audit,
    server_log.logs,
    top.top,
    keys.key,
    projects.project,
    sandboxes.sandbox,
    templates.template,
    sleep.snapshot,
    volumes.volume,
    secrets.secret,
    pools.pool,
    about.env,
    about.info,
    about.version,
    about.completion,
    uninstall.uninstall,
):
    root.add_command(command)
for command in (
    sandbox_run.exec_, sandbox_run.shell, sandbox_logs.logs, sleep.pause, sleep.resume, sleep.fork, sleep.take
):  # fmt: skip
    sandboxes.sandbox.add_command(command)


def run(arguments: Sequence[str], machine: Machine) -> int:
    """The exit code: 2 for a wrong call, 1 for a failure, a command's own for `exec` and `shell`."""
    try:
        code = root.main(
            list(arguments),
            prog_name="warren",
            complete_var=about.COMPLETION_VARIABLE,
            standalone_mode=False,
            obj=machine,
        )
    except BaseException as error:
        return _explained(_cause(error))
    return code if isinstance(code, int) else 0


def _cause(error: BaseException) -> BaseException:
    """The first of a group: the others are its consequences."""
    if isinstance(error, BaseExceptionGroup):
        members = cast("tuple[BaseException, ...]", error.exceptions)
        return _cause(members[0])
    return error


def _explained(error: BaseException) -> int:
    match error:
        case click.ClickException():
            error.show()
            return error.exit_code
        case WarrenError():
            click.echo(f"warren: {error.message}", err=True)
            return EXIT_FAILURE
        case click.Abort() | KeyboardInterrupt():
            return EXIT_INTERRUPTED
        case BrokenPipeError():
            _forget_output()
            return EXIT_BROKEN_PIPE
        case OSError():
            click.echo(f"warren: cannot go on: {error}", err=True)
            return EXIT_FAILURE
        case _:
            raise error


def _forget_output() -> None:
    """Else the interpreter tries to flush it at the end, and complains."""
    sys.stdout = None  # type: ignore[assignment]
