"""`warren template build`: a Dockerfile becomes a template, through the server's API."""

import os
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import click

from warren.cli import build_context, display
from warren.cli.dockerfile import Dockerfile, DockerStep, parse_dockerfile
from warren.cli.invocation import json_option, pairs_option, rest
from warren.cli.machine import Machine
from warren.cli.rest import Json, Rest, inner
from warren.model.errors import BadRequest, BuildFailed

POLL_S = 0.3
"""Seconds between two looks at a build."""
LINES = 100
"""Lines of one answer."""
NAMES = ("e2b.Dockerfile", "Dockerfile")
CONFIG = "e2b.toml"
SERVES_AFTER = "sleep 20"
"""The ready command of a CMD, which says nothing about when it is ready; as the E2B clients have it."""


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with a Dockerfile, and what its e2b.toml says."""

    folder: Path
    file: Path
    config: Mapping[str, Any]

    @property
    def name(self) -> str | None:
        return self.config.get("template_name") or self.config.get("template_id")


@click.command("build")
@click.argument("path", default=".", type=click.Path(exists=True, path_type=Path))
@click.option("--name", "-n", help="Name, or name:tag; default: of e2b.toml, else the folder's.")
@click.option("--file", "-f", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The Dockerfile.")
@click.option("--tag", "-t", "tags", multiple=True, help="Another tag for it; repeatable.")
@click.option("--cpu", type=click.IntRange(min=1), help="Processors of its sandboxes.")
@click.option("--memory", type=click.IntRange(min=1), metavar="MIB", help="Memory of its sandboxes.")
@click.option("--disk", type=click.IntRange(min=1), metavar="MIB", help="Free disk of its sandboxes.")
@click.option("--start", "start_command", metavar="COMMAND", help="Runs in each sandbox; default: CMD.")
@click.option("--ready", "ready_command", metavar="COMMAND", help="Ends with 0 once the start command serves.")
@pairs_option("--build-arg", help="Value for an ARG; repeatable.")
@click.option("--login", metavar="USER", help="User name for the image's registry; asks for the password.")
@click.option("--no-cache", is_flag=True, help="Run every step, whatever is there from earlier builds.")
@json_option
@click.pass_obj
def build(machine: Machine, path: Path, file: Path | None, **how: Any) -> None:
    """Build a template from the Dockerfile of PATH (e2b.Dockerfile with its e2b.toml, or Dockerfile)."""
    project = find_project(path, file)
    parsed = parse_dockerfile(project.file.read_text("utf-8"), how["build_arg"])
    name = how["name"] or project.name or project.folder.resolve().name.lower()
    with rest(machine) as server:
        made = server.post("/v3/templates", requested(name, project, how))
        place = f"/templates/{quote(made['templateID'], safe='')}"
        steps = [_uploaded(server, place, project.folder, step) for step in parsed.steps]
        start = started(parsed, steps, project, how)
        server.post(f"/v2{place}/builds/{made['buildID']}", start)
        follow(server, f"{place}/builds/{made['buildID']}/status", parsed.steps, quiet=how["as_json"])
    if how["as_json"]:
        display.as_json(made)
    else:
        click.echo(f"Template {name} is ready: {made['templateID']}")


def find_project(path: Path, file: Path | None) -> Project:
    """Raises BadRequest when there is no Dockerfile."""
    folder = path if path.is_dir() else path.parent
    config_file = folder / CONFIG
    try:
        config = tomllib.loads(config_file.read_text("utf-8")) if config_file.is_file() else {}
    except tomllib.TOMLDecodeError as error:
        raise BadRequest(f"cannot read {config_file}: {error}") from None
    named = [folder / str(config["dockerfile"])] if "dockerfile" in config else []
    candidates = [file] if file else [path] if path.is_file() else [*named, *(folder / name for name in NAMES)]
    for candidate in candidates:
        if candidate.is_file():
            return Project(folder, candidate, config)
    raise BadRequest(f"cannot find a Dockerfile in {folder}: make one, or name it with --file")


def requested(name: str, project: Project, how: Mapping[str, Any]) -> Json:
    sizes = {
        "cpuCount": how["cpu"] or project.config.get("cpu_count"),
        "memoryMB": how["memory"] or project.config.get("memory_mb"),
        "minFreeDiskMb": how["disk"],
    }
    return {"name": name, "tags": list(how["tags"]), **{key: value for key, value in sizes.items() if value}}


def started(parsed: Dockerfile, steps: Sequence[Json], project: Project, how: Mapping[str, Any]) -> Json:
    given = how["start_command"] or project.config.get("start_cmd")
    start, ready = given or parsed.start_command, how["ready_command"] or project.config.get("ready_cmd")
    if parsed.start_command and not given and not ready:
        ready = SERVES_AFTER
    body: Json = {"fromImage": parsed.image, "steps": list(steps), "force": how["no_cache"]}
    if start:
        body["startCmd"] = start
    if ready:
        body["readyCmd"] = ready
    if how["login"]:
        password = click.prompt("Password", hide_input=True, err=True)
        body["fromImageRegistry"] = {"type": "registry", "username": how["login"], "password": password}
    return body


def _uploaded(server: Rest, place: str, folder: Path, step: DockerStep) -> Json:
    """The step as the server takes it, its files there already."""
    told: Json = {"type": step.kind, "args": list(step.args)}
    if step.source is None:
        return told
    try:
        paths = build_context.chosen(folder, step.source, build_context.read_ignored(folder))
    except BadRequest as error:
        raise BadRequest(f"{error.message} (line {step.line})") from None
    told["filesHash"] = build_context.digest(folder, step.args, paths)
    link = server.get(f"{place}/files/{told['filesHash']}")
    if not link["present"]:
        with build_context.packed(folder, paths) as archive:
            server.upload(link["url"], archive, os.fstat(archive.fileno()).st_size, link.get("headers") or {})
    return told


def follow(server: Rest, path: str, steps: Sequence[DockerStep], *, quiet: bool) -> None:
    """Show the log until the build ends. Raises BuildFailed with the reason."""
    offset = 0
    with display.console().status("waiting for a place", spinner="line") as spinner:
        while True:
            state = server.get(path, {"logsOffset": offset, "limit": LINES})
            entries = cast("list[Json]", state["logEntries"])
            offset += len(entries)
            for entry in entries:
                if not quiet:
                    click.echo(line_of(entry), err=True)
                spinner.update(where(entry.get("step"), steps))
            if state["status"] == "error":
                raise BuildFailed(failure(inner(state, "reason"), steps))
            if state["status"] == "ready" and len(entries) < LINES:
                return
            if not entries:
                time.sleep(POLL_S)  # noqa: TID251 - nothing else runs in this program meanwhile


def line_of(entry: Json) -> str:
    step = f"[{entry['step']}] " if entry.get("step") else ""
    return display.cell(f"{step}{entry['message']}")


def where(step: str | None, steps: Sequence[DockerStep]) -> str:
    """Which of the steps it is at, for the line that moves."""
    number = _number(step, steps)
    if number is None:
        return step or "building"
    at = steps[number - 1]
    return f"step {number} of {len(steps)}: {at.kind} {display.cell(' '.join(at.args))[:60]}".replace("[", "\\[")


def failure(reason: Json, steps: Sequence[DockerStep]) -> str:
    message = str(reason.get("message") or "cannot build the template; its log says why")
    number = _number(reason.get("step"), steps)
    return f"{message} (line {steps[number - 1].line} of the Dockerfile)" if number else message


def _number(step: object, steps: Sequence[DockerStep]) -> int | None:
    number = int(step) if isinstance(step, str) and step.isdecimal() else 0
    return number if 1 <= number <= len(steps) else None
