"""A template build as an operation to crash in: of an image that is new each time, with files, commands, a service.

Whatever is cut off, the same build succeeds afterwards and begins with what was finished; nothing else is left.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from e2b import Sandbox, Template

from tests import image_trees
from tests.chaos.operations import LIFE_S, Operation
from tests.e2e.local_server import LocalServer
from tests.image_registry import ImageRegistry
from tests.oci_image import Image
from tests.security.lab import base_image

MARKS = ("one", "two")
SLEEPERS = "for file in /proc/[0-9]*/comm; do read -r name < $file; [ $name = sleep ] && echo up; done; true"


@dataclass(frozen=True, slots=True)
class Site:
    """`layers`: those of the builds before."""

    name: str
    image: str
    folder: Path
    layers: frozenset[str]

    @property
    def template(self) -> Any:
        made = Template(file_context_path=self.folder).from_image(self.image).copy("data", "/srv/data", user="root")
        for mark in MARKS:
            made = made.run_cmd(f"echo {mark} >> trace")
        return made.set_start_cmd("touch up && exec sleep 100000", "test -e up")


def build_operation(registry: ImageRegistry) -> Operation:
    return Operation("build", _sites(registry), _build, _is_built_by_a_retry)


def _sites(registry: ImageRegistry) -> Callable[[LocalServer, str], Site]:
    like = image_trees.debian_like(base_image())

    def prepare(server: LocalServer, _: str) -> Site:
        name = f"b{secrets.token_hex(6)}"
        folder = server.folder / name
        folder.mkdir()
        (folder / "data").write_text(f"{name}\n")
        # Another configuration makes another manifest, which nobody has fetched yet.
        image = registry.push(f"{name}:1", Image(like.layers, {**like.config, "Labels": {"of": name}}))
        return Site(name, image, folder, _layers(server))

    return prepare


def _build(server: LocalServer, site: Site) -> list[str]:
    """What its log says of steps that came from the cache."""
    lines: list[str] = []
    Template.build(
        site.template, site.name, memory_mb=512, on_build_logs=lambda entry: lines.append(entry.message),
        **server.options,
    )  # fmt: skip
    return [line for line in lines if line.startswith("CACHED [")]


def _is_built_by_a_retry(server: LocalServer, site: Site, built: list[str] | None) -> None:
    if built is None:
        finished = _layers(server) - site.layers
        assert len(_build(server, site)) == len(finished), "what was finished is not done again"
    with Sandbox.create(site.name, timeout=LIFE_S, **server.options) as box:
        said = box.commands.run(f"cat trace /srv/data; {SLEEPERS}").stdout
        assert said.split() == [*MARKS, site.name, "up"], said
    headers = {"X-API-KEY": server.api_key}
    assert httpx.delete(f"{server.api_url}/templates/{site.name}", headers=headers, timeout=60).status_code == 204


def _layers(server: LocalServer) -> frozenset[str]:
    return frozenset(path.name for path in (server.state / "build-cache").glob("*.files"))
