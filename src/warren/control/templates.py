"""Templates: finding one by the many ways to name it, and where its image lies."""

import asyncio
import contextlib
import os
import shutil
import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

import structlog

from warren import durable
from warren.contracts.clock import Clock
from warren.contracts.store import Store
from warren.contracts.template_store import BuildQuery, TemplateQuery
from warren.control import built_in
from warren.model.build import Build
from warren.model.errors import BadRequest, Forbidden, ServerAway, TemplateNotFound
from warren.model.idle import Ladder, default_ladder
from warren.model.project import Project
from warren.model.snapshot import DEFAULT_TAG
from warren.model.template import Reference, Template, TemplateEntry, TemplateImage, TemplateTag, checked_tags

log = structlog.get_logger(__name__)

_IMAGE = "rootfs.erofs"
_BLOCK = 512
"""Bytes of what `st_blocks` counts."""
_SUPERBLOCK_OFFSET, _SUPERBLOCK = 1024, struct.Struct("<24xQ")
"""Of EROFS: the time of making is its only number that is read here."""


@dataclass(frozen=True, slots=True)
class KeptImage:
    """A finished image on this disk: its size there, and when it was last used."""

    digest: str
    bytes: int
    used_at: float


class TemplateFiles:
    """One folder per digest under the state folder; a template's image is a file of its own in there.

    A folder's time is the last use. Names that begin with a dot are on their way in or out.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> None:
        """Clear what a crash left half-made or half-deleted. For the server alone."""
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            if folder.name.startswith("."):
                _remove(folder)
                continue
            for partial in folder.glob(f"{_IMAGE}.*"):
                partial.unlink()
            if not (folder / _IMAGE).exists():
                _remove(folder)

    def image(self, template: Template) -> TemplateImage:
        return self.at(template.digest)

    def at(self, digest: str) -> TemplateImage:
        return TemplateImage(digest=digest, path=str(self._folder / digest.removeprefix("sha256:") / _IMAGE))

    def use(self, digest: str) -> bool:
        """Whether it is here; then it counts as used now."""
        image = Path(self.at(digest).path)
        if not image.exists():
            return False
        os.utime(image.parent)
        return True

    def all(self) -> list[KeptImage]:
        """Finished images."""
        found: list[KeptImage] = []
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                size = (folder / _IMAGE).stat().st_blocks * _BLOCK
                if not folder.name.startswith("."):
                    found.append(KeptImage(f"sha256:{folder.name}", size, folder.stat().st_mtime))
        return found

    def put_aside(self, image: KeptImage) -> Path | None:
        """Take an image away from whoever looks for it, in one step, to where the caller deletes it.

        None if it was used since it was looked at. Sandboxes that have it open go on.
        """
        home, aside = Path(self.at(image.digest).path).parent, self.partial()
        try:
            if home.stat().st_mtime != image.used_at:
                return None
            home.rename(aside)
        except FileNotFoundError:
            return None
        return aside

    def made_at(self, digest: str) -> int:
        """When an image was made, in seconds, as its own header says; 0 for what is no image."""
        try:
            with open(self.at(digest).path, "rb") as file:
                return _SUPERBLOCK.unpack(os.pread(file.fileno(), _SUPERBLOCK.size, _SUPERBLOCK_OFFSET))[0]
        except (OSError, struct.error):
            return 0

    def partial(self) -> Path:
        """A new path on the disk of the images, for one that is being made."""
        return self._folder / f".{uuid.uuid4().hex}"

    def adopt(self, source: Path, digest: str) -> None:
        """Take in a finished image: a hard link where the file system allows it, else a copy."""
        if self.use(digest):
            return
        home = self._folder / digest.removeprefix("sha256:")
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = home / f"{_IMAGE}.{os.getpid()}"
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
            durable.flush([partial])
        durable.rename(partial, home / _IMAGE)
        durable.flush([self._folder])

    def take_in(self, cache: Path) -> list[Template]:
        """Adopt the newest image of each name that set-up left in `cache`; what is none is left out, with a word."""
        newest: dict[str, tuple[Template, Path]] = {}
        for file in cache.glob("*/template.json"):
            try:
                found = built_in.parse(file.read_bytes())
            except BadRequest as error:
                log.warning("no template", file=str(file), error=error.message)
                continue
            name = found.names[0]
            if name not in newest or found.created_at > newest[name][0].created_at:
                newest[name] = (found, file.parent / _IMAGE)
        for found, image in newest.values():
            self.adopt(image, found.digest)
        return [found for found, _ in newest.values()]


class Templates:
    """What is not there and what is another project's private one are one and the same: TemplateNotFound."""

    def __init__(
        self,
        *,
        server_id: str,
        store: Store,
        clock: Clock,
        files: TemplateFiles,
        ladders: Mapping[str, Ladder] = MappingProxyType({}),
    ) -> None:
        """`ladders`: of the server's settings, for templates that say nothing themselves."""
        self._server_id, self._store, self._clock, self._files = server_id, store, clock, files
        self._ladders = ladders

    async def resolve(self, project: Project, reference: str) -> Template:
        """The build to start for an id, name, `namespace/name` or `name:tag`: own, built in, or public.

        Raises BadRequest, TemplateNotFound.
        """
        wanted = Reference.parse(reference)
        if is_namespace_of(project, wanted.namespace):
            found = await self._store.find_template(project.id, wanted.name, wanted.version)
        else:
            found = await self._store.public_template(wanted.namespace or "", wanted.name, wanted.version)
        if found is None:
            raise TemplateNotFound(f"template '{reference}' not found")
        return found

    async def startable(self, project: Project, reference: str) -> Template:
        """`resolve`, for a start on this server. Raises ServerAway when another one has the image."""
        found = await self.resolve(project, reference)
        await self.refuse_elsewhere(found.server_id, f"template '{reference}'")
        return found

    async def refuse_elsewhere(self, server_id: str, what: str) -> None:
        """Raise ServerAway for what another server alone has."""
        if server_id in ("", self._server_id):
            return
        home = next((one.name for one in await self._store.servers() if one.id == server_id), "unknown")
        raise ServerAway(f"cannot use {what} here: the server {home!r} alone has it; send this request there")

    async def entry(self, project: Project, reference: str) -> TemplateEntry:
        """A template, finished or not, whatever tag the reference has. Raises BadRequest, TemplateNotFound."""
        wanted = Reference.parse(reference)
        if is_namespace_of(project, wanted.namespace):
            found = await self._store.template_entry(project.id, wanted.name)
        else:
            found = await self._store.public_entry(wanted.namespace or "", wanted.name)
        if found is None:
            raise TemplateNotFound(f"template '{reference}' not found")
        return found

    async def visible(self, project: Project, reference: str) -> TemplateEntry:
        """`entry`, to look into it: the project's own or a built-in one. Raises Forbidden for another project's."""
        found = await self.entry(project, reference)
        if found.project_id not in (None, project.id):
            raise Forbidden(f"cannot look into template '{reference}': it is another project's")
        return found

    async def own(self, project: Project, reference: str) -> TemplateEntry:
        """`entry`, to change it. Raises Forbidden for one that is built in or another project's public one."""
        found = await self.entry(project, reference)
        if found.project_id != project.id:
            raise Forbidden(f"cannot change template '{reference}': it is not this project's")
        return found

    async def set_public(self, project: Project, reference: str, *, public: bool) -> TemplateEntry:
        """Let other projects start it, or not any more."""
        entry = await self.own(project, reference)
        await self._store.set_public(entry.id, public, self._clock.now())
        return entry

    async def set_ladder(self, project: Project, reference: str, ladder: Ladder | None) -> TemplateEntry:
        """How deep its sandboxes sleep while nobody uses them; None: as the server's settings say."""
        entry = await self.own(project, reference)
        await self._store.set_ladder(entry.id, ladder, self._clock.now())
        return replace(entry, ladder=ladder)

    def ladder(self, entry: TemplateEntry) -> Ladder:
        """Its own, or what the server's settings say of it."""
        return entry.ladder or default_ladder(self._ladders, (*entry.names, entry.id))

    async def tags(self, project: Project, reference: str) -> Sequence[TemplateTag]:
        return await self._store.template_tags((await self.visible(project, reference)).id)

    async def assign_tags(
        self, project: Project, target: str, tags: Sequence[str]
    ) -> tuple[TemplateEntry, Sequence[TemplateTag]]:
        """Let tags name the build that `name[:tag]` names. Raises BadRequest, LimitReached."""
        wanted, now = _some(tags), self._clock.now()
        entry = await self.own(project, target)
        build_id = await self._store.assign_tags(entry.id, Reference.parse(target).version, wanted, now)
        if build_id is None:
            raise TemplateNotFound(f"template '{target}' not found")
        return entry, [TemplateTag(tag, build_id, now) for tag in wanted]

    async def remove_tags(self, project: Project, name: str, tags: Sequence[str]) -> TemplateEntry:
        """Raises BadRequest, TemplateNotFound when it has none of them."""
        unwanted = _some(tags)
        if DEFAULT_TAG in unwanted:
            raise BadRequest(f"Cannot delete the '{DEFAULT_TAG}' tag")
        if Reference.parse(name).tag is not None:
            raise BadRequest(f"cannot use the name {name!r}: give the tags apart from it")
        entry = await self.own(project, name)
        if not await self._store.remove_tags(entry.id, unwanted):
            raise TemplateNotFound(f"template '{name}' has none of the tags {', '.join(unwanted)}")
        return entry

    async def builds(self, entry: TemplateEntry, limit: int, after: tuple[datetime, str] | None) -> Sequence[Build]:
        """Newest first."""
        return await self._store.builds(BuildQuery(entry.id, limit, after))

    async def list(self, query: TemplateQuery) -> Sequence[TemplateEntry]:
        return await self._store.templates(query)

    async def with_services(self, template: Template) -> Template:
        """See the function of that name."""
        return await with_services(self._store, template)

    async def register_built_in(self, cache: Path) -> Sequence[Template]:
        """Take in the built-in templates that set-up left in the cache: one folder each, the newest wins."""
        found: list[Template] = []
        for template in await asyncio.to_thread(self._files.take_in, cache):
            await self._store.put_template(template)
            log.info("built-in template registered", name=template.names[0], digest=template.digest)
            found.append(template)
        return found


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_namespace_of(project: Project, namespace: str | None) -> bool:
    return namespace in (None, project.name.lower())


def _some(tags: Sequence[str]) -> tuple[str, ...]:
    if not tags:
        raise BadRequest("At least one tag is required")
    return checked_tags(tags)


async def with_services(store: Store, template: Template) -> Template:
    """With the commands that have its services up after a boot: those of its root template as it is now."""
    found = await store.find_template(template.project_id or "", template.root)
    if found is None:
        return template
    return replace(template, start_command=found.start_command, ready_command=found.ready_command)
