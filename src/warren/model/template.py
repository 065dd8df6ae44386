"""A template: a named, immutable root file system and the sizes that its sandboxes get."""

from dataclasses import dataclass
from datetime import datetime

from warren.model.sandbox import Resources


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


@dataclass(frozen=True, slots=True)
class TemplateImage:
    """Where an engine finds a template's root file system: a file of its own, verified by digest."""

    digest: str
    path: str
