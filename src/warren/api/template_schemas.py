"""The wire's objects for templates and builds (contract 2.3)."""

import json
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from warren.api.schemas import Seconds, ShortText, Size, Timestamp, Wire
from warren.model import limits
from warren.model.build import AwsKeys, LogLevel, Recipe, RegistryLogin, Step, StepKind
from warren.model.errors import BadRequest
from warren.model.idle import Ladder

GCP_USER = "_json_key"
"""Artifact Registry takes a service account's key file as the password of this user:
https://cloud.google.com/artifact-registry/docs/docker/authentication#json-key"""
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]{2,16}){1,3}-[0-9]{1,2}")
_KEY_ID = re.compile(r"\w{16,128}", re.ASCII)
"""https://docs.aws.amazon.com/IAM/latest/APIReference/API_AccessKey.html"""
_MODE = re.compile(r"[0-7]{0,4}")
_ARGUMENTS = {StepKind.RUN: (1, 2), StepKind.COPY: (2, 4), StepKind.WORKDIR: (1, 1), StepKind.USER: (1, 2)}
"""Fewest and most arguments; ENV takes pairs."""
_ALIASES = {"ADD": StepKind.COPY, "ARG": StepKind.ENV}


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("cannot take NUL characters")
    return text


Text = Annotated[str, AfterValidator(_no_nul)]
Tags = Annotated[list[ShortText], Field(max_length=limits.TEMPLATE_MAX_TAGS)]


class NewTemplate(Wire):
    """`alias` is the older name of `name`."""

    name: ShortText | None = None
    alias: ShortText | None = None
    tags: Tags = Field(default_factory=list[str])
    teamID: ShortText | None = None
    cpuCount: Size | None = None
    memoryMB: Size | None = None
    minFreeDiskMb: Size | None = None


class TemplateUpdate(Wire):
    public: Annotated[bool, Field(strict=True)]


class TagsAssignment(Wire):
    target: ShortText
    tags: Tags


class TagsRemoval(Wire):
    name: ShortText
    tags: Tags


class LadderIn(Wire):
    """Seconds of idleness before each step, what is not given is left out. A word that is not known is refused: to
    ignore it would leave a step out that somebody asked for."""

    model_config = ConfigDict(extra="forbid")

    freezeAfter: Seconds | None = None
    reclaimAfter: Seconds | None = None
    diskAfter: Seconds | None = None

    def ladder(self) -> Ladder:
        """Raises BadRequest."""
        return Ladder(self.freezeAfter, self.reclaimAfter, self.diskAfter)


class PasswordLogin(Wire):
    type: Literal["registry"]
    username: Text
    password: Text

    def login(self) -> RegistryLogin:
        return RegistryLogin(self.username, self.password)


class GcpLogin(Wire):
    type: Literal["gcp"]
    serviceAccountJson: Text

    def login(self) -> RegistryLogin:
        try:
            json.loads(self.serviceAccountJson)
        except (ValueError, RecursionError):
            raise BadRequest("cannot use fromImageRegistry.serviceAccountJson: it is no JSON") from None
        return RegistryLogin(GCP_USER, self.serviceAccountJson)


class AwsLogin(Wire):
    type: Literal["aws"]
    awsAccessKeyId: Text
    awsSecretAccessKey: Text
    awsRegion: Text

    def login(self) -> AwsKeys:
        """The region becomes part of a host's name, the key id one of a header."""
        if not _REGION.fullmatch(self.awsRegion):
            raise BadRequest(f"cannot use fromImageRegistry.awsRegion {self.awsRegion!r}: give one like eu-central-1")
        if not _KEY_ID.fullmatch(self.awsAccessKeyId):
            raise BadRequest("cannot use fromImageRegistry.awsAccessKeyId: it has other characters than A-Z a-z 0-9 _")
        return AwsKeys(self.awsAccessKeyId, self.awsSecretAccessKey, self.awsRegion)


class StepIn(Wire):
    type: ShortText
    args: list[Text] = Field(default_factory=list[str])
    filesHash: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    force: bool = False

    def step(self) -> Step:
        """Raises BadRequest."""
        kind = _ALIASES.get(self.type.upper()) or _kind(self.type.upper())
        arguments = tuple(self.args)
        _check_count(kind, len(arguments))
        if kind is StepKind.COPY:
            if self.filesHash is None:
                raise BadRequest("cannot take a COPY step without filesHash; upload its files first")
            arguments = (*arguments, "", "")[:4]
            if not _MODE.fullmatch(arguments[3]):
                raise BadRequest(f"cannot use the mode {arguments[3]!r} of a COPY step: give up to four octal digits")
        elif kind is StepKind.RUN and arguments[1:] == ("",):
            arguments = arguments[:1]
        elif kind is StepKind.USER:
            arguments = arguments[:1]
        return Step(kind, arguments, self.filesHash if kind is StepKind.COPY else None, self.force)


def _kind(text: str) -> StepKind:
    try:
        return StepKind(text)
    except ValueError:
        known = ", ".join(StepKind)
        raise BadRequest(f"cannot take a step of type {text!r}; there are {known}") from None


def _check_count(kind: StepKind, count: int) -> None:
    if kind is StepKind.ENV:
        if count == 0 or count % 2:
            raise BadRequest(f"cannot take an ENV step with {count} arguments: give names and values in turn")
        return
    low, high = _ARGUMENTS[kind]
    if not low <= count <= high:
        raise BadRequest(f"cannot take a {kind} step with {count} arguments: give {low} to {high}")


class BuildStart(Wire):
    fromImage: ShortText | None = None
    fromTemplate: ShortText | None = None
    fromImageRegistry: Annotated[PasswordLogin | GcpLogin | AwsLogin, Field(discriminator="type")] | None = None
    force: bool = False
    steps: Annotated[list[StepIn], Field(max_length=limits.BUILD_MAX_STEPS)] = Field(default_factory=list[StepIn])
    startCmd: Text | None = None
    readyCmd: Text | None = None

    @model_validator(mode="after")
    def check_origin(self) -> Self:
        if bool(self.fromImage) == bool(self.fromTemplate):
            raise ValueError("exactly one of fromImage and fromTemplate must be given")
        return self

    def recipe(self) -> Recipe:
        """Raises BadRequest."""
        return Recipe(
            from_image=self.fromImage or None,
            from_template=self.fromTemplate or None,
            login=None if self.fromImageRegistry is None else self.fromImageRegistry.login(),
            force=self.force,
            steps=tuple(step.step() for step in self.steps),
            start_command=self.startCmd or None,
            ready_command=self.readyCmd or None,
        )


class RequestedBuild(BaseModel):
    templateID: str
    buildID: str
    public: bool
    names: list[str]
    tags: list[str]
    aliases: list[str]


class UploadOut(BaseModel):
    present: bool
    url: str
    headers: dict[str, str] = Field(default_factory=dict)


class BuildLineOut(BaseModel):
    timestamp: Timestamp
    message: str
    level: LogLevel
    step: str | None = None


class ReasonOut(BaseModel):
    message: str
    step: str | None = None
    logEntries: list[BuildLineOut] = Field(default_factory=list[BuildLineOut])


class BuildOut(BaseModel):
    """`logs` is of older clients, and always empty."""

    templateID: str
    buildID: str
    status: Literal["waiting", "building", "ready", "error"]
    logs: list[str] = Field(default_factory=list[str])
    logEntries: list[BuildLineOut]
    reason: ReasonOut | None = None


class BuildLogs(BaseModel):
    logs: list[BuildLineOut]


class NamesOut(BaseModel):
    names: list[str]


class AssignedTags(BaseModel):
    tags: list[str]
    buildID: str


class TagOut(BaseModel):
    tag: str
    buildID: str
    createdAt: Timestamp


class LadderOut(BaseModel):
    """The ladder that holds, and whether it is the template's own or comes from the server's settings."""

    freezeAfter: int | None = None
    reclaimAfter: int | None = None
    diskAfter: int | None = None
    setBy: Literal["template", "server"]


class AliasOut(BaseModel):
    templateID: str
    public: bool
