"""`warren sandbox exec|shell`"""

import asyncio
import os
from typing import Any

import click

from warren.cli import local_terminal, session
from warren.cli.invocation import pairs_option, rest, sandbox_argument, sandbox_path, server_address
from warren.cli.machine import Machine
from warren.cli.process_stream import Command, Target, started
from warren.model.errors import BadRequest, WarrenError

_BEFORE_THE_ID = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""Options after the id belong to the command that runs inside."""


@click.command("exec", context_settings=_BEFORE_THE_ID)
@click.option("--user", "-u", help="Who runs it; default: the template's user.")
@click.option("--cwd", "-w", help="Where it runs; default: the user's home.")
@pairs_option("--env", "-e", help="Environment variable for it; repeatable.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Kill it after this.")
@click.option("--interactive", "-i", is_flag=True, help="Pass input also when it comes from a terminal.")
@sandbox_argument
@click.argument("words", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def exec_(machine: Machine, sandbox_id: str, words: tuple[str, ...], **how: Any) -> int:
    """Run a command in a sandbox; its output, input and exit code pass through.

    There is no shell around it: for pipes and variables, run one (… exec ID sh -c 'echo $HOME | wc'). Ctrl-C ends it.
    """
    pass_stdin = bool(how["interactive"]) or not os.isatty(local_terminal.STDIN)
    command = Command(_words(words), cwd=how["cwd"], envs=how["env"], stdin=pass_stdin, timeout_s=how["timeout"])
    target = _target(machine, sandbox_id, how["user"])

    async def run() -> int:
        async with started(target, command) as process:
            return await session.run_streams(process, pass_stdin)

    return asyncio.run(run())


@click.command("shell", context_settings=_BEFORE_THE_ID)
@click.option("--user", "-u", help="Who you are inside; default: the template's user.")
@click.option("--cwd", "-w", help="Where it starts; default: the user's home.")
@sandbox_argument
@click.argument("words", metavar="[COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def shell(machine: Machine, sandbox_id: str, user: str | None, cwd: str | None, words: tuple[str, ...]) -> int:
    """Open a terminal in a sandbox; without COMMAND a login shell. The sandbox lives on while it is open."""
    if not os.isatty(local_terminal.STDIN):
        raise BadRequest("cannot open a terminal: standard input is not one; use `warren sandbox exec`")
    command = Command(
        _words(words) or ("/bin/bash", "-i", "-l"),
        cwd=cwd,
        envs={"TERM": machine.environ.get("TERM") or "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
        terminal=local_terminal.size(local_terminal.STDIN),
    )
    target = _target(machine, sandbox_id, user)

    async def run() -> int:
        async with started(target, command) as process:
            return await session.run_terminal(process, lambda: _keep_alive(machine, sandbox_id))

    return asyncio.run(run())


def _target(machine: Machine, sandbox_id: str, user: str | None) -> Target:
    """Asks the server for the sandbox's token; looking at it does not prolong its life."""
    with rest(machine) as server:
        found = server.get(sandbox_path(sandbox_id))
    return Target(server_address(machine).sandbox_url, found["sandboxID"], found.get("envdAccessToken"), user)


def _keep_alive(machine: Machine, sandbox_id: str) -> None:
    try:
        with rest(machine) as server:
            server.post(f"/v2{sandbox_path(sandbox_id)}/connect", {"timeout": session.KEEP_ALIVE_FOR_S})
    except WarrenError:
        return  # the terminal itself tells when the sandbox is gone


def _words(words: tuple[str, ...]) -> tuple[str, ...]:
    if words[:1] == ("--",):
        return words[1:]
    if words and words[0].startswith("-"):
        raise click.UsageError(f"{words[0]} after the id is taken for the command; options go before the id")
    return words
