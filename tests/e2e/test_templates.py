"""Templates built with the unmodified `e2b` package: steps, logs, tags, failures, and sandboxes made of them."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2b import AsyncTemplate, Sandbox, Template, TemplateException
from e2b.exceptions import BuildException
from e2b.template.logger import LogEntry

from tests.e2e.local_server import LocalServer

BUILD_S = 240
"""Seconds for a build on a machine that does much else."""
pytestmark = pytest.mark.timeout(BUILD_S + 120)


@pytest.fixture
def name(server: LocalServer) -> Iterator[str]:
    """Of a template that goes with the test."""
    chosen = f"t{uuid.uuid4().hex[:12]}"
    yield chosen
    httpx.delete(f"{server.api_url}/templates/{chosen}", headers={"X-API-KEY": server.api_key})


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text("print('copied')\n")
    (tmp_path / "app" / "link").symlink_to("main.py")
    return tmp_path


@pytest.mark.covers("B01", "B02", "B03", "B06")
def test_a_template_is_built_in_steps_and_starts_sandboxes(
    name: str, files: Path, server: LocalServer, on_runtime: dict[str, Any]
) -> None:
    lines: list[LogEntry] = []
    template = (
        Template(file_context_path=files)
        .from_template("base")
        .set_envs({"GREETING": "hello", "WHO": "template"})
        .copy("app", "/opt/app", user="root", mode=0o755)
        .set_workdir("/opt/work")
        .run_cmd("echo $GREETING > made && echo said by a step")
        .run_cmd("id -un > /opt/who", user="root")
        .set_user("root")
    )
    info = Template.build(template, name, cpu_count=1, memory_mb=512, on_build_logs=lines.append)
    assert (info.name, info.tags) == (name, ["default"])
    assert any("said by a step" in line.message for line in lines), [line.message for line in lines]
    with Sandbox.create(name, envs={"WHO": "request"}, **on_runtime) as sandbox:
        said = sandbox.commands.run("id -un; pwd; cat made /opt/who; echo $GREETING $WHO; python3 /opt/app/link; nproc")
        assert said.stdout.split("\n")[:6] == ["root", "/opt/work", "hello", "root", "hello request", "copied"]
        assert sandbox.commands.run("stat -c %U:%a /opt/app/main.py").stdout == "root:755\n"
        assert sandbox.get_info().template_id == info.template_id


@pytest.mark.covers("B01")
def test_a_build_goes_on_in_the_background_and_is_asked_about(name: str) -> None:
    info = Template.build_in_background(Template().from_template("base").run_cmd("echo one; echo two"), name)
    seen: list[str] = []
    while (status := Template.get_build_status(info, logs_offset=len(seen))).status.value in ("waiting", "building"):
        seen += [entry.message for entry in status.log_entries]
    assert status.status.value == "ready", status.reason
    everything = [entry.message for entry in Template.get_build_status(info, logs_offset=0).log_entries]
    assert everything[: len(seen)] == seen
    assert [line for line in everything if line in ("one", "two")] == ["one", "two"]


@pytest.mark.covers("B07")
def test_tags_name_builds(name: str, server: LocalServer) -> None:
    assert not Template.exists(name)
    first = Template.build(Template().from_template("base").run_cmd("echo 1 > /home/user/v"), f"{name}:v1")
    second = Template.build(Template().from_template("base").run_cmd("echo 2 > /home/user/v"), name, tags=["v2", "new"])
    assert first.template_id == second.template_id
    assert Template.exists(name) and Template.alias_exists(f"default/{name}")
    assigned = Template.assign_tags(f"{name}:v1", ["stable", "default"])
    assert (assigned.build_id, assigned.tags) == (first.build_id, ["stable", "default"])
    Template.remove_tags(name, "v1")
    tags = {tag.tag: tag.build_id for tag in Template.get_tags(f"default/{name}")}
    ids = (first.build_id, second.build_id)
    assert tags == {"stable": ids[0], "default": ids[0], "v2": ids[1], "new": ids[1]}
    for reference, version in ((name, "1"), (f"{name}:new", "2")):
        with Sandbox.create(reference) as sandbox:
            assert sandbox.files.read("/home/user/v") == f"{version}\n"
    with pytest.raises(TemplateException, match="default"):
        Template.remove_tags(name, "default")


@pytest.mark.covers("B08")
def test_a_failed_step_is_named_and_points_at_its_line(name: str) -> None:
    template = Template().from_template("base").run_cmd("true")
    template = template.run_cmd("whoami", user="root123")
    with pytest.raises(BuildException) as failed:
        Template.build(template, name)
    assert str(failed.value) == (
        "failed to run command 'whoami': command failed: unauthenticated: invalid username: 'root123'"
    )
    assert any('user="root123"' in str(entry.statement) for entry in failed.traceback)
    with pytest.raises(BuildException, match="exit 3"):
        Template.build(Template().from_template("base").run_cmd("exit 3"), name)
    with pytest.raises(BuildException, match="nothing-there"):
        Template.build(Template().from_template("nothing-there"), name)


@pytest.mark.covers("B05")
def test_what_was_built_before_is_not_built_again(name: str) -> None:
    def build(last: str, **options: Any) -> list[str]:
        lines: list[str] = []
        template = Template().from_template("base").run_cmd("date +%N > /opt/first || sudo sh -c 'date > /opt/first'")
        Template.build(
            template.run_cmd(f"echo {last}"), name, on_build_logs=lambda line: lines.append(line.message), **options
        )
        return lines

    build("a")
    assert sum("CACHED" in line for line in build("a")) == 2
    assert sum("CACHED" in line for line in build("b")) == 1
    assert not any("CACHED" in line for line in build("a", skip_cache=True))


@pytest.mark.covers("B09")
def test_a_template_is_listed_published_and_deleted(name: str, server: LocalServer) -> None:
    info = Template.build(Template().from_template("base").run_cmd("true"), name)
    headers = {"X-API-KEY": server.api_key}
    (row,) = [one for one in httpx.get(f"{server.api_url}/templates", headers=headers).json() if name in one["aliases"]]
    assert (row["templateID"], row["buildStatus"], row["public"]) == (info.template_id, "ready", False)
    with Sandbox.create(name):
        assert not Sandbox.delete_snapshot(f"{name}:none")
        refused = httpx.delete(f"{server.api_url}/templates/{name}", headers=headers)
        assert (refused.status_code, refused.json()["error_code"]) == (400, "template_in_use")
    assert httpx.delete(f"{server.api_url}/templates/{name}", headers=headers).status_code == 204
    assert not Template.exists(name)


@pytest.mark.anyio
@pytest.mark.covers("B01", "B07")
async def test_the_async_client_builds_too(name: str, files: Path) -> None:
    template = AsyncTemplate(file_context_path=files).from_template("base").copy("app/main.py", "main.py")
    info = await AsyncTemplate.build(template.run_cmd("python3 main.py"), f"{name}:v1", tags=["default"])
    assert await AsyncTemplate.exists(name)
    tags = await AsyncTemplate.get_tags(name)
    assert {(tag.tag, tag.build_id) for tag in tags} == {("v1", info.build_id), ("default", info.build_id)}
    await AsyncTemplate.assign_tags(f"{name}:v1", "v2")
    await AsyncTemplate.remove_tags(name, ["v1"])
    assert {tag.tag for tag in await AsyncTemplate.get_tags(name)} == {"default", "v2"}
