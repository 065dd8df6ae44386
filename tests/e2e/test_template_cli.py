"""Templates from images and Dockerfiles through the command line, from a real registry, and as files."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2b import Sandbox, Template
from e2b.exceptions import BuildException

from tests import image_trees
from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from tests.e2e.npm_project import INSTALL_S, project, run_e2b
from tests.fake_ecr import KEY_ID, REGION, SECRET, FakeEcr, fake_ecr
from tests.image_registry import PASSWORD, USER, ImageRegistry, image_registry
from tests.security.lab import base_image

__all__ = ["project"]
pytestmark = pytest.mark.timeout(INSTALL_S + 100)

DOCKERFILE = """\
ARG TAG=none
FROM {host}/debian:$TAG
ENV GREETING="hello there"
RUN echo "$GREETING" > /made && id -un >> /made
WORKDIR /srv/app
COPY --chmod=755 run.sh data* ./
USER user
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageRegistry]:
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    with image_registry(tmp_path_factory.mktemp("registry")) as up:
        up.push("debian:12", image_trees.debian_like(base_image()))
        yield up


@pytest.fixture(scope="module")
def closed(registry: ImageRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageRegistry]:
    """One that wants a login."""
    with image_registry(tmp_path_factory.mktemp("closed"), closed=True) as up:
        up.push("alpine:3", image_trees.alpine_like(), f"--dest-creds={USER}:{PASSWORD}")
        yield up


@pytest.fixture(scope="module")
def ecr(closed: ImageRegistry) -> Iterator[FakeEcr]:
    with fake_ecr(f"{USER}:{PASSWORD}") as up:
        yield up


@pytest.fixture(scope="module")
def builder(
    registry: ImageRegistry, closed: ImageRegistry, ecr: FakeEcr, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalServer]:
    local = LocalServer(
        tmp_path_factory.mktemp("server"), registry_insecure=f"{registry.host},{closed.host}", ecr_endpoint=ecr.url
    )
    with nothing_left(local), local:
        yield local


@pytest.fixture
def folder(registry: ImageRegistry, tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.format(host=registry.host))
    (tmp_path / "run.sh").write_text("#!/bin/bash\necho ran\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "one").write_text("1")
    return tmp_path


def succeed(builder: LocalServer, *words: str) -> str:
    done = builder.run("template", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def inside(builder: LocalServer, template: str, runtime: str, command: str) -> str:
    options: dict[str, Any] = {**builder.options, "api_headers": {"X-Warren-Runtime": runtime}}
    with Sandbox.create(template, timeout=120, **options) as box:
        return box.commands.run(command).stdout


LOOK = "cat /made; pwd; id -un; ./run.sh; stat -c %a run.sh; echo $GREETING"
SEEN = "hello there\nroot\n/srv/app\nuser\nran\n755\nhello there\n"


def test_a_dockerfile_becomes_a_template_and_travels_as_a_file(
    builder: LocalServer, folder: Path, tmp_path: Path, runtime: str
) -> None:
    name = f"app-{runtime}"
    told = succeed(builder, "build", str(folder), "--name", name, "--build-arg", "TAG=12", "--cpu", "1")
    assert f"Template {name} is ready" in told
    assert inside(builder, name, runtime, LOOK) == SEEN
    file = tmp_path / "app.template"
    succeed(builder, "export", name, str(file))
    succeed(builder, "import", str(file), "--name", f"{name}-again")
    assert inside(builder, f"{name}-again", runtime, LOOK) == SEEN
    names = {entry for row in json.loads(succeed(builder, "list", "--json")) for entry in row["aliases"]}
    assert {name, f"{name}-again"} <= names
    succeed(builder, "delete", name, f"{name}-again")


def age(builder: LocalServer) -> None:
    """Images and layers were last used long ago."""
    for path in [*(builder.state / "templates").iterdir(), *(builder.state / "build-cache").iterdir()]:
        os.utime(path, (1, 1))


def images_of(builder: LocalServer) -> set[str]:
    return {path.name for path in (builder.state / "templates").iterdir() if (path / "rootfs.erofs").exists()}


def deleted_files_on_loop_devices(builder: LocalServer) -> list[str]:
    backing = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    return [file for file in backing if str(builder.state / "templates") in file and "(deleted)" in file]


def test_prune_takes_what_nothing_stands_on_and_frees_its_disk(builder: LocalServer, folder: Path) -> None:
    def build(content: str) -> str:
        (folder / "run.sh").write_text(f"#!/bin/bash\necho {content}\n")
        return succeed(builder, "build", str(folder), "--name", "moving", "--build-arg", "TAG=12", "--cpu", "1")

    start = images_of(builder)
    build("first")
    first = images_of(builder) - start
    options: dict[str, Any] = {**builder.options, "api_headers": {"X-Warren-Runtime": "crun"}}
    with (
        Sandbox.create("moving", timeout=300, **options) as runs,
        Sandbox.create("moving", timeout=300, **builder.options) as sleeps,
    ):
        sleeps.pause()
        build("other")  # the tag goes on, the first image stays for these two
        age(builder)
        gone = json.loads(succeed(builder, "prune", "--json"))
        assert gone["images"] >= 1, "what was fetched to build from is a cache"
        assert gone["layers"] >= 2
        kept = images_of(builder)
        assert len(kept & first) == len(kept - first - start) == 1
        assert runs.commands.run("./run.sh").stdout == "first\n"
        sleeps.connect()
        assert sleeps.commands.run("./run.sh").stdout == "first\n"
        assert inside(builder, "moving", "crun", "./run.sh") == "other\n"
    age(builder)
    assert json.loads(succeed(builder, "prune", "--json"))["images"] == 1
    assert not images_of(builder) & first
    assert deleted_files_on_loop_devices(builder) == []
    build("first")
    assert images_of(builder) & first, "built anew from the registry, it is the same"
    assert inside(builder, "moving", "crun", "./run.sh") == "first\n"
    succeed(builder, "delete", "moving")


def test_a_failing_step_names_its_line(builder: LocalServer, folder: Path) -> None:
    (folder / "Dockerfile").write_text(
        DOCKERFILE.format(host=builder.settings["WARREN_REGISTRY_INSECURE"].partition(",")[0]) + "RUN exit 7\n"
    )
    done = builder.run("template", "build", str(folder), "--name", "failing", "--build-arg", "TAG=12")
    assert done.returncode == 1
    assert "(line 8 of the Dockerfile)" in done.stderr
    done = builder.run("template", "build", str(folder), "--name", "failing", "--build-arg", "TAG=missing")
    assert done.returncode == 1
    assert "manifest unknown" in done.stderr


DOCKERS = """\
FROM {host}/debian:12
ARG VERSION=1.2
ARG UNSET
ENV A=one B="two words" C=v$VERSION
ENV D ${{A}}-x y
ENV E=${{NONE:-fallback}} A=changed G=$A
RUN echo "$A|$B|$C|$D|$E|$G|$UNSET|$VERSION" > /made
USER 1000
RUN echo "$(id -u):$(id -g)" > /tmp/ids
USER 1000:0
RUN echo "$(id -u):$(id -G)" >> /tmp/ids
USER node:sudo
RUN echo "$(id -u):$(id -gn):$([ "$(id -G)" = "$(id -g)" ] && echo alone)" >> /tmp/ids
USER 4242
RUN id -u > /tmp/nobody-s && id -g >> /tmp/nobody-s
USER 1000:sudo
"""


@pytest.mark.covers("B03")
def test_users_and_variables_of_a_dockerfile_are_as_docker_has_them(
    builder: LocalServer, registry: ImageRegistry
) -> None:
    Template.build(Template().from_dockerfile(DOCKERS.format(host=registry.host)), "dockers", **builder.options)
    for runtime in ("runsc", "crun"):
        seen = inside(builder, "dockers", runtime, "cat /made /tmp/ids /tmp/nobody-s; id -u; id -gn; echo $C")
        assert seen.splitlines() == [
            "changed|two words|v1.2|one-x y|fallback|one||1.2",
            *("1000:1000", "1000:0", "1000:sudo:alone"),
            *("4242", "0"),
            *("1000", "sudo", "v1.2"),
        ]


@pytest.mark.covers("B01", "B03", "B05")
def test_a_server_whose_own_runtime_is_crun_builds_under_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("copied\n")
    template = (
        Template(file_context_path=tmp_path)
        .from_template("base")
        .run_cmd("grep -c gVisor /proc/version > /tmp/kernel || true")
        .copy("file", "/opt/file", user="root", mode=0o600)
        .set_user("root")
    )
    server = LocalServer(tmp_path / "server", runtime="crun")
    with nothing_left(server), server:
        for cached in (False, True):
            lines: list[str] = []
            Template.build(
                template,
                "under-crun",
                on_build_logs=lambda line, lines=lines: lines.append(line.message),
                **server.options,
            )
            assert any("CACHED" in line for line in lines) is cached, lines
        with Sandbox.create("under-crun", timeout=60, **server.options) as box:
            assert box.commands.run("cat /tmp/kernel /opt/file; stat -c %a /opt/file").stdout == "0\ncopied\n600\n"


@pytest.mark.covers("B02")
def test_keys_of_aws_open_a_registry_and_are_kept_nowhere(
    builder: LocalServer, closed: ImageRegistry, ecr: FakeEcr
) -> None:
    image = f"{closed.host}/alpine:3"

    def build(secret: str) -> None:
        Template.build(Template().from_aws_registry(image, KEY_ID, secret, REGION), "from-aws", **builder.options)

    with pytest.raises(BuildException, match=r"no login for its registry: AWS says InvalidSignatureException"):
        build("a-wrong-secret")
    build(SECRET)
    with Sandbox.create("from-aws", timeout=60, **builder.options) as box:
        assert builder.run("sandbox", "exec", box.sandbox_id, "/bin/sh", "-c", "id -un").stdout == "user\n"
    assert ecr.asked == ["com.amazon#InvalidSignatureException", "login"]
    secrets = (SECRET, PASSWORD, "a-wrong-secret")
    look = ["grep", "-rlF", "--exclude=*.erofs", *(f"--regexp={secret}" for secret in secrets)]  # passes over holes
    found = subprocess.run([*look, builder.state, builder.log], stdout=subprocess.PIPE, text=True, check=False)
    assert (found.returncode, found.stdout) == (1, "")


@pytest.mark.covers("B03", "L01")
def test_the_command_line_of_e2b_builds_a_dockerfile(builder: LocalServer, folder: Path, project: Path) -> None:
    base = (folder / "Dockerfile").read_text().splitlines()[1].replace("$TAG", "12")

    def create(last: str) -> subprocess.CompletedProcess[str]:
        lines = (base, "ENV GREETING=hello", "RUN echo $GREETING > /made", "COPY run.sh /srv/", last)
        (folder / "e2b.Dockerfile").write_text("\n".join(lines))
        options = ("--cmd", "touch /tmp/up; exec sleep 900", "--ready-cmd", "ls /tmp/up", "--cpu-count", "1")
        return run_e2b(project, builder, "template", "create", "by-e2b", *options, folder=folder)

    failed = create("RUN exit 7")
    assert failed.returncode == 1
    assert "exit status 7" in failed.stderr
    made = create("WORKDIR /srv")
    assert made.returncode == 0, made.stderr
    assert "[3/" in made.stdout
    assert "CACHED [1/" in made.stdout
    assert inside(builder, "by-e2b", "runsc", "cat /made; ls /tmp/up; pwd; id -un; bash run.sh") == (
        "hello\n/tmp/up\n/srv\nuser\nran\n"
    )
    deleted = run_e2b(project, builder, "template", "delete", "--yes", "by-e2b")
    assert deleted.returncode == 0, deleted.stderr


def test_an_archive_needs_no_registry(builder: LocalServer, tmp_path: Path) -> None:
    file = image_trees.alpine_like().archive(tmp_path)
    succeed(builder, "import", str(file), "--name", "alpine")
    with Sandbox.create("alpine", timeout=60, **builder.options) as box:
        done = builder.run("sandbox", "exec", box.sandbox_id, "/bin/sh", "-c", "id -un; pwd; echo $GREETING")
        assert (done.returncode, done.stdout) == (0, "user\n/home/user\nhello\n"), done.stderr
