"""A template: a name for builds of it, each an immutable root file system and the sizes that its sandboxes get."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from warren.model import limits
from warren.model.build import Build, BuildStatus, Built
from warren.model.errors import BadRequest
from warren.model.idle import Ladder
from warren.model.sandbox import Resources, Sandbox
from warren.model.snapshot import DEFAULT_TAG, Snapshot

_REFERENCE = re.compile(
    r"(?:(?P<namespace>[a-z0-9_-]{1,64})/)?(?P<name>[a-z0-9_-]{1,128})(?::(?P<tag>[a-z0-9_.-]{1,128}))?"
)
_TAG = re.compile(r"[a-z0-9_.-]{1,128}")
_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Template:
    """One finished build of a template: what sandboxes start from.

    `digest` ("sha256:" and 64 hex digits) names the EROFS image; `build_id` is a UUID (wire contract 2.1).
    `project_id` None means built in: every project may start it, none may change it.
    `checkpoint_id`: memory taken when the start command was ready. `root_id`: of a copy, the template that the first of
    its line was started from. server_id: the server that has image and checkpoint;
    "" for what every server has.
    """

    id: str
    project_id: str | None
    names: tuple[str, ...]
    build_id: str
    digest: str
    resources: Resources
    created_at: datetime
    runtime: str | None = None
    default_user: str = "user"
    default_workdir: str = "/home/user"
    public: bool = True
    envs: Mapping[str, str] = field(default_factory=dict[str, str])
    start_command: str | None = None
    ready_command: str | None = None
    checkpoint_id: str | None = None
    root_id: str = ""
    server_id: str = ""

    @property
    def root(self) -> str:
        """The template whose services are up in what starts from this."""
        return self.root_id or self.id


@dataclass(frozen=True, slots=True)
class TemplateEntry:
    """A template as lists show it. `build` is its last successful one, or the newest where none has succeeded.

    `ladder`: how deep its sandboxes sleep while nobody uses them; None for what the server's settings say.
    """

    id: str
    project_id: str | None
    names: tuple[str, ...]
    public: bool
    created_at: datetime
    updated_at: datetime
    build: Build
    build_count: int = 1
    spawn_count: int = 0
    last_spawned_at: datetime | None = None
    ladder: Ladder | None = None


def as_build(template: Template) -> Build:
    """The build that a template which came finished stands for."""
    return Build(
        id=template.build_id,
        template_id=template.id,
        server_id=template.server_id,
        status=BuildStatus.READY,
        resources=template.resources,
        created_at=template.created_at,
        updated_at=template.created_at,
        finished_at=template.created_at,
        runtime=template.runtime,
        built=Built(
            digest=template.digest,
            default_user=template.default_user,
            default_workdir=template.default_workdir,
            envs=template.envs,
            start_command=template.start_command,
            ready_command=template.ready_command,
            checkpoint_id=template.checkpoint_id,
        ),
    )


def startable(
    build: Build, *, project_id: str | None, names: tuple[str, ...], public: bool, since: datetime
) -> Template:
    """A finished build of the template that the rest describes."""
    if build.built is None:
        raise ValueError("only a finished build can be started")
    return Template(
        id=build.template_id,
        project_id=project_id,
        names=names,
        build_id=build.id,
        digest=build.built.digest,
        resources=build.resources,
        created_at=since,
        runtime=build.runtime,
        default_user=build.built.default_user,
        default_workdir=build.built.default_workdir,
        public=public,
        envs=build.built.envs,
        start_command=build.built.start_command,
        ready_command=build.built.ready_command,
        checkpoint_id=build.built.checkpoint_id,
        server_id=build.server_id,
    )


@dataclass(frozen=True, slots=True)
class TemplateTag:
    """The build that a tag of a template names, and since when."""

    tag: str
    build_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Reference:
    """`[namespace/]name[:tag]`, all lower case. `name` may be a template's id as well."""

    name: str
    namespace: str | None = None
    tag: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Raises BadRequest."""
        match = _REFERENCE.fullmatch(text.lower())
        if match is None:
            raise BadRequest(f"cannot read template {text!r}: use an id or [namespace/]name[:tag]")
        return cls(match["name"], match["namespace"], match["tag"])

    @property
    def version(self) -> str:
        return self.tag or DEFAULT_TAG


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """In lower case, each once, in their order. Raises BadRequest for what is no tag, and for too many."""
    found = tuple(dict.fromkeys(tag.lower() for tag in tags))
    for tag in found:
        if not _TAG.fullmatch(tag) or _UUID.fullmatch(tag):
            raise BadRequest(f"cannot use the tag {tag!r}: use a-z 0-9 _ . - and not the form of a UUID")
    if len(found) > limits.TEMPLATE_MAX_TAGS:
        raise BadRequest(f"cannot use {len(found)} tags: a template has at most {limits.TEMPLATE_MAX_TAGS}")
    return found


def template_of(source: Sandbox | Snapshot) -> Template:
    """What a sandbox or snapshot was started from, as it was then: for starting it, or a copy of it, again."""
    return Template(
        id=source.template_id if isinstance(source, Sandbox) else source.id,
        project_id=source.project_id,
        names=() if isinstance(source, Sandbox) or source.name is None else (source.name,),
        build_id="",
        digest=source.digest,
        resources=source.resources,
        created_at=source.created_at,
        runtime=source.runtime,
        default_user=source.default_user,
        default_workdir=source.default_workdir,
        public=False,
        envs=source.template_envs,
        root_id=source.root_template_id or source.template_id if isinstance(source, Sandbox) else source.template_id,
    )


@dataclass(frozen=True, slots=True)
class TemplateImage:
    """Where an engine finds a template's root file system: a file of its own, verified by digest."""

    digest: str
    path: str
