"""`warren template import|export|prune`: templates as files of this machine, for its root.

What is imported is unpacked here and offered to the server for one build, so that limits, log and audit are those of
every build. Nobody else can use the offer: its name is a random number.
"""

import asyncio
import contextlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote

import click

from warren.cli import address, display
from warren.cli.invocation import json_option, rest
from warren.cli.machine import Machine
from warren.cli.rest import Json, Rest
from warren.cli.template_build import follow
from warren.contracts.building import FetchedImage
from warren.model import limits
from warren.model.errors import BadRequest, Forbidden, TemplateNotFound
from warren.settings import Settings

DESCRIPTION, IMAGE = "template.json", "rootfs.erofs"
DESCRIPTION_BYTES = 1024 * 1024
PIECE_BYTES = 1024 * 1024
EROFS_MAGIC, MAGIC_OFFSET = b"\xe2\xe1\xf5\xe0", 1024
DEFAULTS = {"USER": "user", "WORKDIR": "/home/user"}
"""Where every build begins."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What an import brought: the image, and how the template is built of it."""

    image: FetchedImage
    name: str | None
    wanted: Mapping[str, object]
    start: Mapping[str, object]


@click.command("import")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--name", "-n", help="Name, or name:tag; default: that of a template file.")
@json_option
@click.pass_obj
def import_(machine: Machine, path: Path, name: str | None, as_json: bool) -> None:
    """Make a template of PATH: a file of `warren template export`, an OCI archive or layout, a `docker save`.

    Needs root and a running server, but no registry. The digests of a template file tell of damage, not of intent:
    import those of people you trust.
    """
    settings = _roots_settings(machine)
    taken = _take_template(settings, path) if _is_template_file(path) else _take_image(settings, path, as_json)
    name = name or taken.name
    if not name:
        raise BadRequest("cannot import an image without a name; give --name")
    with rest(machine) as server, _offered(settings, taken.image) as offer:
        made = server.post("/v3/templates", {"name": name, **taken.wanted})
        place = f"/templates/{quote(made['templateID'], safe='')}/builds/{made['buildID']}"
        server.post(f"/v2{place}", {"fromImage": offer, **taken.start})
        follow(server, f"{place}/status", (), quiet=as_json)
    if as_json:
        display.as_json(made)
    else:
        click.echo(f"Template {name} is ready: {made['templateID']}")


@click.command()
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@click.pass_obj
def export(machine: Machine, name: str, file: Path, as_json: bool) -> None:
    """Write the template NAME[:TAG] into FILE, which must not exist, for `warren template import` elsewhere.

    Needs root on the machine that built it. Memory is not taken along: a start command starts anew.
    """
    settings = _roots_settings(machine)
    if file.exists():
        raise BadRequest(f"cannot write {file}: it exists")
    description = asyncio.run(_described(settings, name))
    source = settings.templates_dir / description["digest"].removeprefix("sha256:") / IMAGE
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with source.open("rb") as image, tarfile.open(partial, "x") as archive:
            description["size"] = os.fstat(image.fileno()).st_size
            if _digest(image) != description["digest"]:
                raise BadRequest(f"cannot export {name}: its image is damaged; build it again")
            image.seek(0)
            text = json.dumps(description, indent=2).encode()
            for member, size, content in ((DESCRIPTION, len(text), None), (IMAGE, description["size"], image)):
                info = tarfile.TarInfo(member)
                info.size, info.mode = size, 0o644
                archive.addfile(info, content or io.BytesIO(text))
        partial.rename(file)
    except FileNotFoundError:
        raise BadRequest(f"cannot export {name}: its image is not on this machine") from None
    finally:
        partial.unlink(missing_ok=True)
    if as_json:
        display.as_json({"file": str(file.absolute()), **description})
    else:
        click.echo(f"{file}: {file.stat().st_size} bytes, {description['digest']}")


@click.command()
@json_option
@click.pass_obj
def prune(machine: Machine, as_json: bool) -> None:
    """Delete images that no template, sandbox or snapshot stands on, and cached layers; none used in the last hour.

    The server does so itself with what has not been used for long. Needs root and a running server.
    """
    own_server = address.find({}, _roots_settings(machine))
    with Rest(own_server, machine.transport) as server:
        gone = server.post("/machine/prune", {})
    if as_json:
        display.as_json(gone)
    else:
        click.echo(f"{gone['images']} images and {gone['layers']} layers deleted, {gone['bytes'] / 1e6:.0f} MB")


def _roots_settings(machine: Machine) -> Settings:
    if not machine.is_root:
        raise Forbidden("cannot reach the server's images; run this as root on its machine")
    return machine.settings()


def _is_template_file(path: Path) -> bool:
    """By its first member."""
    try:
        with tarfile.open(path, "r:") as archive:
            first = archive.next()
    except (tarfile.TarError, OSError):
        return False
    return first is not None and first.name == DESCRIPTION


def _take_template(settings: Settings, path: Path) -> Taken:
    """Into the server's images, once every byte of it is known to be what its description says."""
    from warren.control.templates import TemplateFiles

    settings.templates_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (
        tarfile.open(path, "r:") as archive,
        # The server clears what begins with a dot, should this process be killed.
        tempfile.NamedTemporaryFile(prefix=".", dir=settings.templates_dir) as copy,
    ):
        described = _read_description(archive)
        member = archive.next()
        image = archive.extractfile(member) if member and member.isreg() and member.name == IMAGE else None
        if image is None or member is None or member.size != described["size"] or member.size > limits.IMAGE_BYTES:
            raise BadRequest(f"cannot import {path}: it holds no image of the size that it says")
        while piece := image.read(PIECE_BYTES):
            copy.write(piece)
        copy.flush()
        os.fchmod(copy.fileno(), 0o644)
        with open(copy.name, "rb") as written:
            magic = os.pread(written.fileno(), len(EROFS_MAGIC), MAGIC_OFFSET)
            if _digest(written) != described["digest"] or magic != EROFS_MAGIC:
                raise BadRequest(f"cannot import {path}: its image is damaged, or not the one that it describes")
            os.fsync(written.fileno())
        TemplateFiles(settings.templates_dir).adopt(Path(copy.name), described["digest"])
    user, folder = described.get("defaultUser"), described.get("defaultWorkdir")
    steps = [
        {"type": kind, "args": [value]}
        for kind, value in (("WORKDIR", folder), ("USER", user))
        if value not in (None, DEFAULTS[kind])
    ]
    start = {"steps": steps, "startCmd": described.get("startCommand"), "readyCmd": described.get("readyCommand")}
    sizes = {"cpuCount": described.get("cpuCount"), "memoryMB": described.get("memoryMB")}
    return Taken(
        FetchedImage(described["digest"], envs=described.get("envs") or {}),
        described.get("name"),
        _set({**sizes, "minFreeDiskMb": described.get("diskMB")}),
        _set(start),
    )


def _read_description(archive: tarfile.TarFile) -> dict[str, Any]:
    member = archive.next()
    file = archive.extractfile(member) if member and member.isreg() and member.size <= DESCRIPTION_BYTES else None
    try:
        found: object = json.loads(file.read()) if file else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadRequest(f"cannot read the {DESCRIPTION} of this template file")
    described = cast("dict[str, Any]", found)
    hexadecimal = str(described.get("digest")).removeprefix("sha256:")
    if len(hexadecimal) != 64 or hexadecimal.strip("0123456789abcdef"):
        raise BadRequest(f"cannot read the digest in the {DESCRIPTION} of this template file")
    return described


def _take_image(settings: Settings, path: Path, quiet: bool) -> Taken:
    from warren.control.templates import TemplateFiles
    from warren.images.registries import parse_registries
    from warren.images.source import OciImages

    settings.templates_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings.images_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    images = OciImages(
        settings.images_dir,
        parse_registries((), (), ()),
        adopt=TemplateFiles(settings.templates_dir).adopt,
        use=TemplateFiles(settings.templates_dir).use,
    )
    with _as_archive(path) as archive:
        found = asyncio.run(images.take_in(archive, lambda _, text, __: None if quiet else click.echo(text, err=True)))
    return Taken(found, None, {}, {"steps": []})


@contextlib.contextmanager
def _as_archive(path: Path) -> Generator[Path]:
    """A layout is a folder; the server's tools are given one file."""
    if path.is_file():
        yield path
        return
    if not (path / "oci-layout").is_file():
        raise BadRequest(f"cannot import {path}: it is neither a file nor an OCI layout")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{path.resolve().name}.tar"
        with tarfile.open(file, "w") as archive:
            archive.add(path, ".")
        yield file


@contextlib.contextmanager
def _offered(settings: Settings, image: FetchedImage) -> Generator[str]:
    from warren.images.shelf import Shelf

    shelf = Shelf(settings.images_dir)
    name = shelf.offer(image)
    try:
        yield name
    finally:
        shelf.withdraw(name)


async def _described(settings: Settings, name: str) -> dict[str, Any]:
    from warren.control.clock import SystemClock, SystemIds
    from warren.control.keys import Keys
    from warren.model.snapshot import DEFAULT_TAG
    from warren.store.sql import SqlStore

    plain, _, tag = name.partition(":")
    store = SqlStore(settings.database)
    await store.open()
    try:
        project = await Keys(store=store, clock=SystemClock(), ids=SystemIds()).default_project()
        found = await store.find_template(project.id, plain, tag or DEFAULT_TAG)
    finally:
        await store.close()
    if found is None:
        raise TemplateNotFound(f"template '{name}' not found")
    return {
        "name": found.names[0] if found.names else plain,
        "digest": found.digest,
        "cpuCount": found.resources.cpu_count,
        "memoryMB": found.resources.memory_mb,
        "diskMB": found.resources.disk_mb,
        "defaultUser": found.default_user,
        "defaultWorkdir": found.default_workdir,
        "envs": dict(found.envs),
        "startCommand": found.start_command,
        "readyCommand": found.ready_command,
        "created": found.created_at.isoformat(),
    }


def _digest(file: IO[bytes]) -> str:
    whole = sha256()
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        whole.update(piece)
    return f"sha256:{whole.hexdigest()}"


def _set(values: Json) -> Json:
    return {name: value for name, value in values.items() if value is not None}
