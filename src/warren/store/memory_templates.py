"""The reference store's part about templates and their builds."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from warren.contracts.template_store import BuildQuery, LineQuery, TemplateQuery
from warren.model import limits
from warren.model.build import Build, BuildLine, BuildStatus, Built, LogLevel
from warren.model.errors import LimitReached, TemplateInUse
from warren.model.idle import Ladder
from warren.model.project import Project
from warren.model.sandbox import Sandbox
from warren.model.snapshot import DEFAULT_TAG
from warren.model.template import Template, TemplateEntry, TemplateTag, as_build, startable
from warren.store.memory_sleep import MemorySleep

_UNFINISHED = (BuildStatus.WAITING, BuildStatus.BUILDING)
_SEVERITY = {level: rank for rank, level in enumerate(LogLevel)}


@dataclass
class _Shelf:
    """A template with its builds and tags."""

    entry: TemplateEntry
    builds: dict[str, Build] = field(default_factory=dict[str, Build])
    tags: dict[str, TemplateTag] = field(default_factory=dict[str, TemplateTag])

    def shown(self) -> TemplateEntry:
        finished = [build for build in self.builds.values() if build.status is BuildStatus.READY]
        newest = max(finished or self.builds.values(), key=_position)
        return replace(self.entry, build=newest, build_count=len(self.builds))

    def tagged(self, tag: str) -> Template | None:
        named = self.tags.get(tag)
        build = None if named is None else self.builds[named.build_id]
        if build is None or build.built is None:
            return None
        it = self.entry
        return startable(build, project_id=it.project_id, names=it.names, public=it.public, since=it.created_at)


class MemoryTemplates(MemorySleep):
    def __init__(self) -> None:
        super().__init__()
        self._projects: dict[str, Project] = {}
        self._shelves: dict[str, _Shelf] = {}
        self._lines: defaultdict[tuple[str, str], list[BuildLine]] = defaultdict(list)

    # --- templates -----------------------------------------------------------------------------------------

    async def put_template(self, template: Template) -> None:
        at = template.created_at
        build = as_build(template)
        shelf = self._shelves.setdefault(template.id, _Shelf(_entry(template, build)))
        shelf.entry = replace(_entry(template, build), spawn_count=shelf.entry.spawn_count, ladder=shelf.entry.ladder)
        shelf.builds[build.id] = build
        shelf.tags[DEFAULT_TAG] = TemplateTag(DEFAULT_TAG, build.id, at)

    async def find_template(self, project_id: str, name_or_id: str, tag: str = DEFAULT_TAG) -> Template | None:
        shelf = self._best(project_id, name_or_id, lambda shelf: shelf.tagged(tag) is not None)
        return None if shelf is None else shelf.tagged(tag)

    async def public_template(self, namespace: str, name: str, tag: str = DEFAULT_TAG) -> Template | None:
        shelf = self._public(namespace, name)
        return None if shelf is None else shelf.tagged(tag)

    async def templates(self, query: TemplateQuery) -> Sequence[TemplateEntry]:
        entries = [
            shelf.shown()
            for shelf in self._shelves.values()
            if shelf.entry.project_id in (None, query.project_id)
            and (query.after is None or _position(shelf.entry) < query.after)
        ]
        return sorted(entries, key=_position, reverse=True)[: query.limit]

    async def template_entry(self, project_id: str, name_or_id: str) -> TemplateEntry | None:
        shelf = self._best(project_id, name_or_id, lambda _: True)
        return None if shelf is None else shelf.shown()

    async def public_entry(self, namespace: str, name: str) -> TemplateEntry | None:
        shelf = self._public(namespace, name)
        return None if shelf is None else shelf.shown()

    async def set_public(self, template_id: str, public: bool, at: datetime) -> None:
        if (shelf := self._shelves.get(template_id)) is not None:
            shelf.entry = replace(shelf.entry, public=public, updated_at=at)

    async def set_ladder(self, template_id: str, ladder: Ladder | None, at: datetime) -> None:
        if (shelf := self._shelves.get(template_id)) is not None:
            shelf.entry = replace(shelf.entry, ladder=ladder, updated_at=at)

    async def ladders(self) -> Mapping[str, Ladder]:
        entries = (shelf.entry for shelf in self._shelves.values())
        return {entry.id: entry.ladder for entry in entries if entry.ladder is not None}

    async def remove_template(self, template_id: str) -> bool:
        users = [row for row in self._sandboxes.values() if row.template_id == template_id and row.state.is_live]
        if users:
            raise TemplateInUse(
                f"cannot delete template '{template_id}': {len(users)} running or paused sandboxes use it"
            )
        for key in [key for key in self._lines if key[0] == template_id]:
            del self._lines[key]
        return self._shelves.pop(template_id, None) is not None

    async def template_tags(self, template_id: str) -> Sequence[TemplateTag]:
        shelf = self._shelves.get(template_id)
        return [] if shelf is None else [tag for _, tag in sorted(shelf.tags.items())]

    async def assign_tags(self, template_id: str, source: str, tags: Sequence[str], at: datetime) -> str | None:
        shelf = self._shelves.get(template_id)
        if shelf is None or source not in shelf.tags:
            return None
        build_id = shelf.tags[source].build_id
        _point(shelf, tags, build_id, at)
        return build_id

    async def remove_tags(self, template_id: str, tags: Sequence[str]) -> bool:
        shelf = self._shelves.get(template_id)
        return shelf is not None and any([shelf.tags.pop(tag, None) for tag in tags])

    async def referenced_images(self) -> frozenset[str]:
        tagged = {build.built.digest for build in self._tagged_builds() if build.built is not None}
        live = {row.digest for row in self._sandboxes.values() if row.state.is_live}
        return frozenset(tagged | live | {one.digest for one in self._snapshots.values()})

    async def referenced_checkpoints(self) -> frozenset[str]:
        built = (build.built for build in self._tagged_builds())
        names = {made.checkpoint_id for made in built if made is not None and made.checkpoint_id is not None}
        return await super().referenced_checkpoints() | names

    # --- builds --------------------------------------------------------------------------------------------

    async def request_build(self, project_id: str, name: str, build: Build) -> Build:
        own = [shelf for shelf in self._shelves.values() if shelf.entry.project_id == project_id]
        unfinished = [one for shelf in own for one in shelf.builds.values() if one.status in _UNFINISHED]
        if len(unfinished) >= limits.PROJECT_MAX_BUILDS:
            raise LimitReached(f"cannot register another build: the project's limit is {limits.PROJECT_MAX_BUILDS}")
        named = sorted(own, key=lambda shelf: shelf.entry.id != name)
        shelf = next((shelf for shelf in named if name == shelf.entry.id or name in shelf.entry.names), None)
        if shelf is None:
            if len(own) >= limits.PROJECT_MAX_TEMPLATES:
                raise LimitReached(f"cannot add another template: the limit is {limits.PROJECT_MAX_TEMPLATES}")
            at = build.created_at
            shelf = _Shelf(TemplateEntry(build.template_id, project_id, (name,), False, at, at, build))
            self._shelves[build.template_id] = shelf
        made = replace(build, template_id=shelf.entry.id)
        shelf.builds[made.id] = made
        shelf.entry = replace(shelf.entry, updated_at=made.created_at)
        self._forget_old(shelf)
        return made

    def _forget_old(self, shelf: _Shelf) -> None:
        tagged = {tag.build_id for tag in shelf.tags.values()}
        spare = [one for one in shelf.builds.values() if one.status not in _UNFINISHED and one.id not in tagged]
        for build in sorted(spare, key=_position, reverse=True)[limits.TEMPLATE_BUILDS_KEPT :]:
            del shelf.builds[build.id]
            self._lines.pop((build.template_id, build.id), None)

    async def build(self, template_id: str, build_id: str) -> Build | None:
        shelf = self._shelves.get(template_id)
        return None if shelf is None else shelf.builds.get(build_id)

    async def builds(self, query: BuildQuery) -> Sequence[Build]:
        shelf = self._shelves.get(query.template_id)
        every = [] if shelf is None else sorted(shelf.builds.values(), key=_position, reverse=True)
        return [one for one in every if query.after is None or _position(one) < query.after][: query.limit]

    async def claim_build(self, template_id: str, build_id: str, at: datetime) -> Build | None:
        return self._turn(template_id, build_id, (BuildStatus.WAITING,), status=BuildStatus.BUILDING, updated_at=at)

    async def finish_build(self, template_id: str, build_id: str, built: Built, at: datetime) -> bool:
        changes = {"status": BuildStatus.READY, "updated_at": at, "finished_at": at, "built": built}
        done = self._turn(template_id, build_id, (BuildStatus.BUILDING,), **changes)
        if done is not None:
            shelf = self._shelves[template_id]
            _point(shelf, done.tags, build_id, at)
            shelf.entry = replace(shelf.entry, updated_at=at)
        return done is not None

    async def fail_build(self, template_id: str, build_id: str, reason: str, step: str | None, at: datetime) -> bool:
        changes = {"status": BuildStatus.ERROR, "updated_at": at, "finished_at": at}
        said = {"reason": reason, "reason_step": step}
        return self._turn(template_id, build_id, _UNFINISHED, **changes, **said) is not None

    async def unfinished_builds(self, server_id: str) -> Sequence[Build]:
        every = (build for shelf in self._shelves.values() for build in shelf.builds.values())
        wanted = [build for build in every if build.server_id == server_id and build.status in _UNFINISHED]
        return sorted(wanted, key=_position)

    async def add_build_lines(self, template_id: str, build_id: str, first: int, lines: Sequence[BuildLine]) -> bool:
        build = await self.build(template_id, build_id)
        if build is None or build.status is not BuildStatus.BUILDING:
            return False
        kept = self._lines[template_id, build_id]
        kept[first:] = [replace(line, message=line.message[: limits.BUILD_LINE_MAX]) for line in lines]
        return True

    async def build_lines(self, template_id: str, build_id: str, query: LineQuery) -> Sequence[BuildLine]:
        found = [line for line in self._lines.get((template_id, build_id), ()) if _wanted(line, query)]
        return (found if query.ascending else found[::-1])[query.offset :][: query.limit]

    # --- within --------------------------------------------------------------------------------------------

    def _count_spawn(self, sandbox: Sandbox) -> None:
        shelf = self._shelves.get(sandbox.template_id)
        if shelf is not None and shelf.entry.project_id is not None:
            count = shelf.entry.spawn_count + 1
            shelf.entry = replace(shelf.entry, spawn_count=count, last_spawned_at=sandbox.created_at)

    def _best(self, project_id: str, name_or_id: str, fits: Callable[[_Shelf], bool]) -> _Shelf | None:
        """Own, built in, another's; then the one with the id before those with the name; then the newest."""

        def rank(shelf: _Shelf) -> tuple[int, bool, datetime]:
            whose = {project_id: 2, None: 1}.get(shelf.entry.project_id, 0)
            return whose, shelf.entry.id == name_or_id, shelf.entry.created_at

        def is_meant(shelf: _Shelf) -> bool:
            by_id = shelf.entry.id == name_or_id
            if shelf.entry.project_id in (None, project_id):
                return by_id or name_or_id in shelf.entry.names
            return by_id and shelf.entry.public

        return max(
            (shelf for shelf in self._shelves.values() if is_meant(shelf) and fits(shelf)), key=rank, default=None
        )

    def _public(self, namespace: str, name: str) -> _Shelf | None:
        projects = {project.id for project in self._projects.values() if project.name.lower() == namespace}
        for shelf in self._shelves.values():
            if shelf.entry.public and shelf.entry.project_id in projects and name in shelf.entry.names:
                return shelf
        return None

    def _tagged_builds(self) -> Iterable[Build]:
        for shelf in self._shelves.values():
            yield from (shelf.builds[tag.build_id] for tag in shelf.tags.values())

    def _turn(
        self, template_id: str, build_id: str, expected: Sequence[BuildStatus], **changes: object
    ) -> Build | None:
        shelf = self._shelves.get(template_id)
        build = None if shelf is None else shelf.builds.get(build_id)
        if shelf is None or build is None or build.status not in expected:
            return None
        shelf.builds[build_id] = replace(build, **changes)  # pyright: ignore[reportArgumentType]
        return shelf.builds[build_id]


def _entry(template: Template, build: Build) -> TemplateEntry:
    at = template.created_at
    return TemplateEntry(template.id, template.project_id, template.names, template.public, at, at, build)


def _point(shelf: _Shelf, tags: Sequence[str], build_id: str, at: datetime) -> None:
    if len(shelf.tags.keys() | set(tags)) > limits.TEMPLATE_MAX_TAGS:
        raise LimitReached(f"cannot add tags: a template has at most {limits.TEMPLATE_MAX_TAGS}; remove some")
    shelf.tags |= {tag: TemplateTag(tag, build_id, at) for tag in tags}


def _position(row: Build | TemplateEntry) -> tuple[datetime, str]:
    return row.created_at, row.id


def _wanted(line: BuildLine, query: LineQuery) -> bool:
    if query.start is not None:
        ahead = line.at >= query.start if query.ascending else line.at <= query.start
        if not ahead:
            return False
    return query.level is None or _SEVERITY[line.level] >= _SEVERITY[query.level]
