"""The part of the store that keeps templates, their builds and tags; the rules of `contracts.store` hold here too.

`tests/contract/template_store_suite.py` holds the checks that every implementation passes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from warren.model.build import Build, BuildLine, Built, LogLevel
from warren.model.idle import Ladder
from warren.model.snapshot import DEFAULT_TAG
from warren.model.template import Template, TemplateEntry, TemplateTag


@dataclass(frozen=True, slots=True)
class TemplateQuery:
    """`after` is the (created_at, id) of the last row seen."""

    project_id: str
    limit: int = 100
    after: tuple[datetime, str] | None = None


@dataclass(frozen=True, slots=True)
class BuildQuery:
    """`after` is the (created_at, id) of the last row seen."""

    template_id: str
    limit: int = 100
    after: tuple[datetime, str] | None = None


@dataclass(frozen=True, slots=True)
class LineQuery:
    """`offset` counts the lines of at least this level; `start` is inclusive, in the direction of reading."""

    offset: int = 0
    limit: int = 100
    level: LogLevel | None = None
    start: datetime | None = None
    ascending: bool = True


class Templates(Protocol):
    """A template is visible to a project when it is the project's own or built in."""

    async def put_template(self, template: Template) -> None:
        """Insert or replace by id a template that came finished; the tag `default` names its build from then on."""
        ...

    async def find_template(self, project_id: str, name_or_id: str, tag: str = DEFAULT_TAG) -> Template | None:
        """The finished build that the tag names, of a visible template, or by its id of any public one.

        The project's own wins over others, an id over a name.
        """
        ...

    async def public_template(self, namespace: str, name: str, tag: str = DEFAULT_TAG) -> Template | None:
        """Likewise, of a public template by the name of its project, in lower case, and its own."""
        ...

    async def templates(self, query: TemplateQuery) -> Sequence[TemplateEntry]:
        """The visible ones, newest first."""
        ...

    async def template_entry(self, project_id: str, name_or_id: str) -> TemplateEntry | None:
        """As `find_template` finds it, finished or not."""
        ...

    async def public_entry(self, namespace: str, name: str) -> TemplateEntry | None: ...

    async def set_public(self, template_id: str, public: bool, at: datetime) -> None:
        """Whether other projects may start it."""
        ...

    async def set_ladder(self, template_id: str, ladder: Ladder | None, at: datetime) -> None:
        """How deep its idle sandboxes sleep; None for what the server's settings say."""
        ...

    async def ladders(self) -> Mapping[str, Ladder]:
        """By id, of all templates that have one of their own."""
        ...

    async def remove_template(self, template_id: str) -> bool:
        """Forget it with its builds, tags and logs. False when there is none.

        Raises TemplateInUse while live sandboxes, of whatever project, were started from it: one transaction, no race.
        """
        ...

    async def template_tags(self, template_id: str) -> Sequence[TemplateTag]:
        """By name."""
        ...

    async def assign_tags(self, template_id: str, source: str, tags: Sequence[str], at: datetime) -> str | None:
        """Let `tags` name the build that the tag `source` names; its id. None when there is no such tag.

        Raises LimitReached above `limits.TEMPLATE_MAX_TAGS`.
        """
        ...

    async def remove_tags(self, template_id: str, tags: Sequence[str]) -> bool:
        """False when there is none of them."""
        ...

    async def referenced_images(self) -> frozenset[str]:
        """Digests, of all projects, that tags, live sandboxes and snapshots stand on."""
        ...


class Builds(Protocol):
    """Builds of templates: WAITING ──► BUILDING ──► READY, and from the first two ERROR. Each is a compare-and-set."""

    async def request_build(self, project_id: str, name: str, build: Build) -> Build:
        """Insert a waiting build of the project's template with this name or id; that one's id is in the answer.

        Where there is none, one is made with the id that the build names. Old finished builds that no tag names are
        forgotten beyond `limits.TEMPLATE_BUILDS_KEPT`. Raises LimitReached.
        """
        ...

    async def build(self, template_id: str, build_id: str) -> Build | None: ...

    async def builds(self, query: BuildQuery) -> Sequence[Build]:
        """Newest first."""
        ...

    async def claim_build(self, template_id: str, build_id: str, at: datetime) -> Build | None:
        """waiting -> building. None when it does not wait."""
        ...

    async def finish_build(self, template_id: str, build_id: str, built: Built, at: datetime) -> bool:
        """building -> ready; from then on its tags name it. False when it was ended or deleted meanwhile."""
        ...

    async def fail_build(self, template_id: str, build_id: str, reason: str, step: str | None, at: datetime) -> bool:
        """waiting or building -> error. False when it has ended already."""
        ...

    async def unfinished_builds(self, server_id: str) -> Sequence[Build]:
        """Of all projects, this server's that wait or are being built, oldest first."""
        ...

    async def add_build_lines(self, template_id: str, build_id: str, first: int, lines: Sequence[BuildLine]) -> bool:
        """Append, numbered from `first`. False, and nothing done, when the build is not being built any more."""
        ...

    async def build_lines(self, template_id: str, build_id: str, query: LineQuery) -> Sequence[BuildLine]: ...
