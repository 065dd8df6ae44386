"""Steps of template builds through the unmodified `e2b` package: what they do, what is cached, what a crash leaves."""

import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2b import BuildException, Sandbox, Template, wait_for_port

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until

pytestmark = pytest.mark.timeout(300)
PORT = 8123
TICKET = f"/tmp/{secrets.token_hex(8)}"  # of the sandbox
"""In the steps of this run alone: no other run's cache has them."""


@dataclass(frozen=True)
class Context:
    """What a project with a template has on its disk."""

    folder: Path

    def template(self) -> Any:
        return Template(file_context_path=self.folder)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    folder = tmp_path_factory.mktemp("context")
    (folder / "app" / "lib").mkdir(parents=True)
    (folder / "app" / "main.py").write_text("print('hello')\n")
    (folder / "app" / "lib" / "data").write_text("x" * 100_000)
    (folder / "app" / "link").symlink_to("main.py")
    (folder / "tool").write_text("#!/bin/bash\necho tool\n")
    return Context(folder)


def built(template: Any, name: str, **options: Any) -> list[str]:
    """Build it; the lines of its log."""
    lines: list[str] = []
    Template.build(template, name, on_build_logs=lambda entry: lines.append(entry.message), **options)
    return lines


def cached(lines: list[str]) -> list[str]:
    """Numbers of the steps that came from the cache."""
    return [line.partition("[")[2].partition("/")[0] for line in lines if line.startswith("CACHED [")]


def six_steps(context: Context, last: str = "echo one > last") -> Any:
    return (
        context.template()
        .from_template("base")
        .set_workdir("/home/user/work")
        .set_envs({"COLOUR": "red", "BOTH": "$HOME/red"})
        .copy("app", ".")
        .copy("tool", "/usr/local/bin/tool", user="root", mode=0o755)
        .run_cmd(f"touch {TICKET} && echo $BOTH > said && tool >> said && id -un >> said")
        .run_cmd(last)
    )


@pytest.fixture(scope="module")
def steps(server: LocalServer, context: Context) -> str:
    name = "steps"
    built(six_steps(context), name)
    return name


@pytest.mark.covers("B03")
def test_a_sandbox_has_what_the_steps_made(steps: str, create: Callable[..., Sandbox]) -> None:
    box = create(steps)
    assert box.commands.run("pwd; echo $COLOUR; cat said").stdout.split() == [
        "/home/user/work", "red", "/home/user/red", "tool", "user",
    ]  # fmt: skip
    seen = box.commands.run(
        "python3 main.py; stat -c '%U %a %s' lib/data; readlink link; stat -c '%U %a' $(which tool)"
    )
    assert seen.stdout.splitlines() == ["hello", "user 644 100000", "main.py", "root 755"]


@pytest.mark.covers("B05")
def test_an_unchanged_build_runs_nothing_and_a_change_at_the_end_one_step(steps: str, context: Context) -> None:
    assert cached(built(six_steps(context), steps)) == ["1", "2", "3", "4", "5", "6"]
    changed = built(six_steps(context, "echo two > last"), f"{steps}-2")
    assert cached(changed) == ["1", "2", "3", "4", "5"]
    assert Sandbox.create(f"{steps}-2").commands.run("cat last").stdout == "two\n"
    (context.folder / "tool").write_text("#!/bin/bash\necho other\n")
    assert cached(built(six_steps(context), f"{steps}-3")) == ["1", "2", "3"]
    assert cached(built(six_steps(context), f"{steps}-3", skip_cache=True)) == []


@pytest.mark.covers("B08")
def test_a_failing_step_is_named(server: LocalServer, context: Context) -> None:
    template = context.template().from_template("base").run_cmd("echo before").run_cmd("echo why >&2; exit 3")
    lines: list[str] = []
    with pytest.raises(BuildException, match="failed to run command 'echo why >&2; exit 3': exit status 3"):
        Template.build(template, "fails", on_build_logs=lambda entry: lines.append(entry.message))
    assert "why" in lines
    with pytest.raises(BuildException) as caught:
        built(context.template().from_template("base").run_cmd("whoami", user="root123"), "fails")
    said = "failed to run command 'whoami': command failed: unauthenticated: invalid username: 'root123'"
    assert said in str(caught.value)


@pytest.mark.covers("B04")
def test_services_are_up_when_create_returns(
    server: LocalServer, context: Context, create: Callable[..., Sandbox], runtime: str
) -> None:
    template = (
        context.template()
        .from_template("base")
        .set_workdir("/srv")
        .run_cmd(f"echo {TICKET} > index.html", user="root")
        .set_start_cmd(f"python3 -m http.server {PORT}", wait_for_port(PORT))
    )
    built(template, "services")
    boots = set[str]()
    for _ in range(2):
        box = create("services")
        assert box.commands.run(f"curl -s http://127.0.0.1:{PORT}/").stdout.strip() == TICKET
        boots.add(box.files.read("/proc/sys/kernel/random/boot_id"))
    assert len(boots) == (1 if runtime == "runsc" else 2), "gVisor starts them from the build's memory"
    assert any("CACHED start command" in line for line in built(template, "services"))


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[LocalServer]:
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    local = LocalServer(tmp_path / "own", pool_sandboxes=0)  # what runs and nobody owns is counted here
    with nothing_left(local), local:
        yield local


@pytest.mark.threat("E1")
def test_a_server_killed_in_a_step_loses_no_finished_one(own_server: LocalServer, context: Context) -> None:
    """In each of three steps, one after the other: the next build begins with it."""
    options = own_server.options
    marks = ["sleep 1000", "sleep 1001", "sleep 1002"]

    def template(hanging: int | None) -> Any:
        made = context.template().from_template("base")
        for number, mark in enumerate(marks):
            made = made.run_cmd(mark if number == hanging else f"echo {number} >> trace")
        return made

    for number, mark in enumerate(marks):
        running = Template.build_in_background(template(number), "crash", **options)

        def log() -> list[str]:
            status = Template.get_build_status(running, **options)  # noqa: B023
            return [entry.message for entry in status.log_entries]

        until(lambda: any(mark in line for line in log()), 60, "the step runs")  # noqa: B023
        own_server.kill()
        own_server.start()
        assert Template.get_build_status(running, **options).status.value == "error"
    lines = built(template(None), "crash", **options)
    assert cached(lines) == ["1", "2"], "those that were finished before the crashes"
    with Sandbox.create("crash", **options) as box:
        assert box.commands.run("cat trace").stdout.split() == ["0", "1", "2"]
    assert len(_running(own_server)) == 0


def _running(server: LocalServer) -> list[str]:
    return [path.name for path in Path("/run/warren", server.bridge, "sandboxes").iterdir()]
