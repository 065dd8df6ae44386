"""A template: a named, immutable root file system and the sizes that its sandboxes get."""

from dataclasses import dataclass
from datetime import datetime

from warren.model.sandbox import Resources, Sandbox
from warren.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Template:
    """`digest` ("sha256:" and 64 hex digits) names the EROFS image; `build_id` is a UUID (wire contract 2.1).

    `project_id` None means built in: every project may start it, none may change it.
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
    )


@dataclass(frozen=True, slots=True)
class TemplateImage:
    """Where an engine finds a template's root file system: a file of its own, verified by digest."""

    digest: str
    path: str
