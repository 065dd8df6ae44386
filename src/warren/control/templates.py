"""Templates: finding one by the many ways to name it, and where its image lies."""

import asyncio
import json
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import structlog

from warren.contracts.store import Store
from warren.model.errors import BadRequest, TemplateNotFound
from warren.model.project import Project
from warren.model.sandbox import Resources
from warren.model.template import Template, TemplateImage

log = structlog.get_logger(__name__)

_REFERENCE = re.compile(r"(?:(?P<namespace>[a-z0-9_-]+)/)?(?P<name>[a-z0-9_-]+)(?::(?P<tag>[a-z0-9_.-]+))?")
_TAGS = frozenset({None, "default", "latest"})
_IMAGE = "rootfs.erofs"


class TemplateFiles:
    """One folder per digest under the state folder; a template's image is a file of its own in there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def image(self, template: Template) -> TemplateImage:
        path = self._folder / template.digest.removeprefix("sha256:") / _IMAGE
        return TemplateImage(digest=template.digest, path=str(path))

    def adopt(self, source: Path, digest: str) -> None:
        """Take in a finished image: a hard link where the file system allows it, else a copy."""
        home = self._folder / digest.removeprefix("sha256:")
        if (home / _IMAGE).exists():
            return
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = home / f"{_IMAGE}.{os.getpid()}"
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
        partial.rename(home / _IMAGE)

    def take_in(self, cache: Path) -> list[dict[str, Any]]:
        """Adopt the newest image of each name that set-up left in `cache`; returns their descriptions."""
        newest: dict[str, tuple[dict[str, Any], Path]] = {}
        for file in cache.glob("*/template.json"):
            found: dict[str, Any] = json.loads(file.read_bytes())
            name = str(found["name"])
            if name not in newest or found["created"] > newest[name][0]["created"]:
                newest[name] = (found, file.parent / _IMAGE)
        for found, image in newest.values():
            self.adopt(image, found["digest"])
        return [found for found, _ in newest.values()]


class Templates:
    def __init__(self, *, store: Store, files: TemplateFiles) -> None:
        self._store, self._files = store, files

    async def resolve(self, project: Project, reference: str) -> Template:
        """Find a template by id, name, `namespace/name` or `name:tag`. Raises BadRequest, TemplateNotFound."""
        match = _REFERENCE.fullmatch(reference.lower())
        if match is None:
            raise BadRequest(f"cannot read template {reference!r}: use an id or [namespace/]name[:tag]")
        found = await self._store.find_template(project.id, match["name"])
        mine = match["namespace"] in (None, project.name)
        if found is None or match["tag"] not in _TAGS or not mine:
            raise TemplateNotFound(f"template '{reference}' not found")
        return found

    async def list(self, project: Project) -> Sequence[Template]:
        return await self._store.templates(project.id)

    async def register_built_in(self, cache: Path) -> None:
        """Take in the built-in templates that set-up left in the cache: one folder each, the newest wins."""
        for description in await asyncio.to_thread(self._files.take_in, cache):
            template = _built_in(description)
            await self._store.put_template(template)
            log.info("built-in template registered", name=template.names[0], digest=template.digest)


def _built_in(content: dict[str, Any]) -> Template:
    """Ids are derived from the name: the same on every machine, and for every build of it."""
    name = str(content["name"])
    return Template(
        id="t" + sha256(f"built-in:{name}".encode()).hexdigest()[:19],
        project_id=None,
        names=(name,),
        build_id=str(uuid.UUID(bytes=sha256(content["digest"].encode()).digest()[:16], version=4)),
        digest=content["digest"],
        resources=Resources(
            cpu_count=int(content["cpuCount"]), memory_mb=int(content["memoryMB"]), disk_mb=int(content["diskMB"])
        ),
        created_at=datetime.fromisoformat(content["created"]).astimezone(UTC),
        default_user=content["defaultUser"],
        default_workdir=content["defaultWorkdir"],
    )
