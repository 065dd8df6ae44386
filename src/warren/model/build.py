"""A template build: what goes in, what is said meanwhile, what comes out (wire contract 2.3)."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from warren.model.sandbox import Resources


class StepKind(enum.StrEnum):
    """RUN [command, user?]; COPY [source, destination, user, octal mode], each "" where none is asked;
    ENV [name, value, …]; WORKDIR [path]; USER [name]."""

    RUN = "RUN"
    COPY = "COPY"
    ENV = "ENV"
    WORKDIR = "WORKDIR"
    USER = "USER"


@dataclass(frozen=True, slots=True)
class Step:
    """`files_hash` (64 hex digits) names the uploaded archive of a COPY. `force`: it and all after it run anew."""

    kind: StepKind
    args: tuple[str, ...]
    files_hash: str | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """User name and password for one pull. Never stored and never logged."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """Exchanged for a login of a few hours before the pull. Never stored and never logged."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """Exactly one of `from_image` (an OCI reference) and `from_template` is set.

    `start_command` runs when the steps are done; the template is ready once `ready_command` ends with 0.
    """

    from_image: str | None = None
    from_template: str | None = None
    login: RegistryLogin | AwsKeys | None = None
    force: bool = False
    steps: tuple[Step, ...] = ()
    start_command: str | None = None
    ready_command: str | None = None


class BuildStatus(enum.StrEnum):
    WAITING = "waiting"
    BUILDING = "building"
    READY = "ready"
    ERROR = "error"


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


BASE_STEP = "base"
"""The step before the first: fetching what the build starts from."""
FINALIZE_STEP = "finalize"
"""The step after the last: start command, image, checkpoint."""


@dataclass(frozen=True, slots=True)
class BuildLine:
    """One line of a build's log. `step` is BASE_STEP, FINALIZE_STEP or the 1-based number of a step as text."""

    at: datetime
    level: LogLevel
    message: str
    step: str | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made. `digest` names the EROFS image.

    `envs` are the variables that every process in its sandboxes starts with. `checkpoint_id` is memory taken when the
    start command was ready; None where there is no start command or the build's runtime keeps no memory.
    """

    digest: str
    default_user: str
    default_workdir: str
    envs: Mapping[str, str] = field(default_factory=dict[str, str])
    start_command: str | None = None
    ready_command: str | None = None
    checkpoint_id: str | None = None


@dataclass(frozen=True, slots=True)
class Build:
    """One build of a template, from the request for it on. `id` is a UUID.

    server_id: its home, which runs it and keeps what it makes; "" for what every server has. `tags` are those that it
    gets when it is ready. runtime: what its sandboxes run under; None for the server's default. `reason` says why it
    is an error, `reason_step` which step failed, if one did.
    """

    id: str
    template_id: str
    server_id: str
    status: BuildStatus
    resources: Resources
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    tags: tuple[str, ...] = ()
    built: Built | None = None
    runtime: str | None = None
    reason: str | None = None
    reason_step: str | None = None
