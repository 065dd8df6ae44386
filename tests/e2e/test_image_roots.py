"""Sandboxes of images that nobody prepared for them, on both runtimes, through the `e2b` client."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2b import CommandExitException, Sandbox, SandboxException

from tests import image_trees
from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from tests.oci_image import Image
from tests.security.lab import base_image, outer_settings
from warren.images.registries import parse_registries
from warren.images.source import OciImages

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def image_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server whose built-in templates are made of these images."""
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    folder = tmp_path_factory.mktemp("images")
    cache = folder / "cache"
    cache.mkdir()
    (cache / "bin").symlink_to(outer_settings().cache_dir / "bin")
    images = {
        "scratch": image_trees.scratch(),
        "alpine": image_trees.alpine_like(),
        "debian": image_trees.debian_like(base_image()),
    }
    for name, image in images.items():
        asyncio.run(_make_built_in(folder / name, cache / "templates" / name, name, image))
    local = LocalServer(folder / "server", cache_dir=cache, pool="")
    with nothing_left(local), local:
        yield local


async def _make_built_in(work: Path, target: Path, name: str, image: Image) -> None:
    work.mkdir()
    target.mkdir(parents=True)
    source = OciImages(
        work / "images",
        parse_registries((), (), ()),
        adopt=lambda path, _: os.link(path, target / "rootfs.erofs"),
        use=lambda _: False,
    )
    source.open()
    made = await source.take_in(image.archive(work), lambda *_: None)
    description = {
        "name": name, "digest": made.digest, "cpuCount": 1, "memoryMB": 512, "diskMB": 512, "defaultUser": "user",
        "defaultWorkdir": "/home/user", "created": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    (target / "template.json").write_text(json.dumps(description))


Make = Callable[[str], Sandbox]


@pytest.fixture
def make(image_server: LocalServer, runtime: str) -> Iterator[Make]:
    made: list[Sandbox] = []

    def create(template: str) -> Sandbox:
        options: dict[str, Any] = {**image_server.options, "api_headers": {"X-Warren-Runtime": runtime}}
        made.append(Sandbox.create(template, timeout=120, **options))
        return made[-1]

    yield create
    for sandbox in made:
        sandbox.kill()


def test_a_debian_like_image_is_like_any_other(make: Make) -> None:
    box = make("debian")
    assert box.commands.run("id -un; pwd; echo $HOME").stdout == "user\n/home/user\n/home/user\n"
    assert box.commands.run("id -u; id -g").stdout == "1001\n1001\n"
    assert box.commands.run("sudo id -u").stdout == "0\n"
    assert box.commands.run("stat -c '%u:%g' /home/node/data").stdout == "1000:1000\n"
    box.files.write("/home/user/note", "hello")
    assert box.commands.run("cat note; stat -c %U note").stdout == "hellouser\n"
    assert box.commands.run("touch /usr/local/bin/mine && sudo touch /etc/mine && ls /etc/mine").exit_code == 0
    assert (
        box.commands.run("cat /etc/hostname", user="root").stdout.strip() == box.commands.run("uname -n").stdout.strip()
    )


def test_an_alpine_like_image_has_files_and_programs_and_names_the_shell_it_lacks(
    make: Make, image_server: LocalServer
) -> None:
    box = make("alpine")
    box.files.write("/home/user/note", "hello")
    assert [entry.name for entry in box.files.list("/home/user")] == ["note"]
    with pytest.raises((SandboxException, CommandExitException), match="/bin/bash"):
        box.commands.run("true")

    def run(*words: str) -> str:
        done = image_server.run("sandbox", "exec", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run(box.sandbox_id, "/bin/sh", "-c", "cat note; id -u; stat -c %u:%g /srv/odd") == "hello1000\n65535:61234\n"
    assert run("--user", "root", box.sandbox_id, "/bin/sh", "-c", "cat /srv/odd; id -u") == "mine\n0\n"


def test_a_scratch_image_runs_its_one_program(make: Make, image_server: LocalServer) -> None:
    box = make("scratch")
    done = image_server.run("sandbox", "exec", box.sandbox_id, "/echo", "of", "its", "own")
    assert (done.returncode, done.stdout) == (0, "of its own\n"), done.stderr
    box.files.write("/tmp/note", "x")
    assert box.files.read("/tmp/note") == "x"
    with pytest.raises((SandboxException, CommandExitException), match="/bin/bash"):
        box.commands.run("true")
