"""The wire's objects (contract 2.2). Field names are the wire's; nothing below `api` knows them."""

import ipaddress
import json
import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints, model_validator

from warren.model import limits
from warren.model.errors import InvalidNetworkRule, NotSupported
from warren.model.health import Health
from warren.model.pause import Lifecycle as PauseLifecycle
from warren.model.policy import ALL_TRAFFIC, NetworkPolicy, parse_networks
from warren.model.volume import EntryType

ENVD_VERSION = "0.6.13"
"""The guest protocol that guestd implements; clients switch features by it (contract 3.7)."""
CLIENT_ID = "warren"

Timestamp = Annotated[
    datetime, PlainSerializer(lambda at: at.isoformat(timespec="microseconds").replace("+00:00", "Z"), return_type=str)
]
ShortText = Annotated[str, StringConstraints(max_length=limits.MAX_TEXT_FIELD)]
Seconds = Annotated[int, Field(strict=True, ge=-(2**31), le=2**31 - 1)]
Size = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
_ENV_NAME = re.compile(r"[^=\0]+")


def _bounded_map(entries: int, size: int, what: str) -> AfterValidator:
    def check(pairs: dict[str, str]) -> dict[str, str]:
        if len(pairs) > entries:
            raise ValueError(f"cannot take more than {entries} {what} entries")
        if sum(len(key.encode()) + len(value.encode()) for key, value in pairs.items()) > size:
            raise ValueError(f"cannot take more than {size} bytes of {what}")
        if any("\0" in key or "\0" in value for key, value in pairs.items()):
            raise ValueError(f"cannot take NUL characters in {what}")
        return pairs

    return AfterValidator(check)


def _bounded_value(value: str) -> str:
    if len(value.encode()) > limits.SECRET_VALUE_BYTES:
        raise ValueError(f"cannot keep a value of more than {limits.SECRET_VALUE_BYTES} bytes")
    return value


def _env_names(pairs: dict[str, str]) -> dict[str, str]:
    for name in pairs:
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(f"cannot use {name!r} as the name of an environment variable")
    return pairs


Metadata = Annotated[dict[str, str], _bounded_map(limits.MAX_METADATA_ENTRIES, limits.MAX_METADATA_BYTES, "metadata")]
Environment = Annotated[
    dict[str, str],
    _bounded_map(limits.MAX_ENV_ENTRIES, limits.MAX_ENV_BYTES, "environment"),
    AfterValidator(_env_names),
]


class Wire(BaseModel):
    """Unknown fields are ignored, as clients of other versions expect."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def check_text(cls, body: Any) -> Any:
        """JSON can escape half a surrogate pair, which no UTF-8 answer could ever hold again."""
        try:
            json.dumps(body, ensure_ascii=False, default=repr).encode()
        except UnicodeEncodeError:
            raise ValueError("cannot take text with a lone surrogate; send whole Unicode characters") from None
        except RecursionError:
            raise ValueError("cannot take values nested so deeply") from None
        return body


class Egress(Wire):
    """What `network` of create and the body of `PUT network` share; None and absent are the same."""

    allowOut: list[ShortText] | None = None
    denyOut: list[ShortText] | None = None
    dnsServers: list[ShortText] | None = None
    egressProxy: dict[str, Any] | None = None
    httpsPorts: list[int] | None = None
    rules: dict[str, Any] | None = None

    def refuse_what_is_not_enforced(self) -> None:
        """A rule that nobody enforces is worse than none, so it is refused by name. Raises NotSupported."""
        for name in ("dnsServers", "egressProxy", "httpsPorts", "rules"):
            if getattr(self, name):
                raise NotSupported(f"cannot apply network.{name}: this server does not support it yet; leave it out")

    def policy(
        self, *, allow_internet: bool, public_traffic: bool = True, mask_host: str | None = None
    ) -> NetworkPolicy:
        """Raises InvalidNetworkRule and NotSupported (domains, IPv6)."""
        self.refuse_what_is_not_enforced()
        allow, deny = tuple(self.allowOut or ()), tuple(self.denyOut or ())
        if ALL_TRAFFIC not in parse_networks(deny, "denyOut") and allow_internet:
            named = next((entry for entry in allow if not _is_address(entry)), None)
            if named is not None:
                raise InvalidNetworkRule(f"cannot allow {named!r} by name without '{ALL_TRAFFIC}' in denyOut")
        parse_networks(allow, "allowOut")
        return NetworkPolicy(
            allow_internet=allow_internet,
            allow_out=allow,
            deny_out=deny,
            public_traffic=public_traffic,
            mask_host=mask_host,
        )


def _is_address(entry: str) -> bool:
    try:
        ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
    return True


class Network(Egress):
    allowPublicTraffic: bool | None = None
    maskRequestHost: Annotated[str, StringConstraints(max_length=256, pattern=r"^[A-Za-z0-9.${}:\[\]_-]+$")] | None = (
        None
    )


class NetworkUpdate(Egress):
    """Omitted fields are cleared, not kept."""

    allow_internet_access: bool | None = None

    def as_policy(self) -> NetworkPolicy:
        return self.policy(allow_internet=self.allow_internet_access is not False)


class AutoResume(Wire):
    enabled: bool = False


class VolumeMount(Wire):
    """`readOnly` is Warren's own; so is `name:ro`, which says the same through clients that do not know the field."""

    name: ShortText
    path: ShortText
    readOnly: bool = False

    @property
    def wanted(self) -> tuple[str, str, bool]:
        name = self.name.removesuffix(":ro")
        return name, self.path, self.readOnly or name != self.name


class NewSandbox(Wire):
    """`runtime`, `cpuCount`, `memoryMB` and `diskMB` are Warren's own; the rest is the wire contract's."""

    templateID: ShortText
    timeout: Seconds | None = None
    autoPause: bool = False
    autoPauseMemory: bool = True
    autoResume: AutoResume | None = None
    allow_internet_access: bool | None = None
    network: Network | None = None
    metadata: Metadata = Field(default_factory=dict)
    envVars: Environment = Field(default_factory=dict)
    mcp: dict[str, Any] | None = None
    iam: dict[str, Any] | None = None
    volumeMounts: list[VolumeMount] = Field(default_factory=list[VolumeMount])
    secure: bool | None = None
    runtime: ShortText | None = None
    cpuCount: Size | None = None
    memoryMB: Size | None = None
    diskMB: Size | None = None

    @property
    def lifecycle(self) -> PauseLifecycle:
        resumes = self.autoResume is not None and self.autoResume.enabled
        return PauseLifecycle(self.autoPause, self.autoPauseMemory, resumes)

    def with_defaults(self, *, timeout: int, runtime: str | None, secure: bool) -> Self:
        """The request with what the route and its headers decide filled in."""
        chosen = {
            "timeout": timeout if self.timeout is None else self.timeout,
            "runtime": self.runtime or runtime,
            "secure": secure,
        }
        return self.model_copy(update=chosen)

    @model_validator(mode="after")
    def check_pause(self) -> Self:
        resumes = self.autoResume is not None and self.autoResume.enabled
        if not self.autoPauseMemory and (resumes or not self.autoPause):
            raise ValueError("autoPauseMemory false needs autoPause and forbids autoResume")
        if resumes and not self.autoPause:
            raise ValueError("autoResume needs autoPause")
        return self


class Pause(Wire):
    """`durable` is Warren's own: refuse a pause that would end with the machine."""

    memory: bool = True
    requireHealthyGuest: bool = False
    durable: bool = False


class Fork(Wire):
    """`envVars` and `inheritEnvVars` are Warren's own: by default a copy has none of its source's environment."""

    timeout: Seconds = limits.FORK_DEFAULT_TIMEOUT_S
    count: Annotated[int, Field(strict=True)] = 1
    envVars: Environment = Field(default_factory=dict)
    inheritEnvVars: bool = False


class SnapshotRequest(Wire):
    name: ShortText | None = None
    memory: bool | None = None


class Connect(Wire):
    timeout: Seconds | None = None
    memory: bool | None = None


class ConnectV1(Connect):
    timeout: Seconds = Field()  # pyright: ignore[reportIncompatibleVariableOverride]  # required there


class Timeout(Wire):
    timeout: Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]


class Refresh(Wire):
    duration: Annotated[int, Field(strict=True, ge=0, le=limits.REFRESH_MAX_S)] | None = None


class KeyName(Wire):
    name: str


class NewVolume(Wire):
    """`sizeMB` is Warren's own."""

    name: ShortText
    sizeMB: Size | None = None


class EntryChange(Wire):
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None


class SecretValue(Wire):
    value: Annotated[str, StringConstraints(min_length=1), AfterValidator(_bounded_value)]


class NewSecret(SecretValue):
    name: ShortText
    metadata: Metadata = Field(default_factory=dict)


class SecretUpdate(SecretValue):
    """Absent metadata is kept."""

    metadata: Metadata | None = None


class ErrorOut(BaseModel):
    """The body of every refusal: `code` is the HTTP status, `error_code` the name of the error."""

    code: int
    message: str
    error_code: str


class VolumeErrorOut(ErrorOut):
    """Of the files of volumes: there `code` is the name too."""

    code: str  # pyright: ignore[reportIncompatibleVariableOverride]  # the wire contract's two forms


class SandboxOut(BaseModel):
    templateID: str
    sandboxID: str
    clientID: str = CLIENT_ID
    envdVersion: str = ENVD_VERSION
    alias: str | None = None
    envdAccessToken: str | None = None
    trafficAccessToken: str | None = None
    domain: str | None = None


class ListedSandbox(BaseModel):
    templateID: str
    sandboxID: str
    clientID: str = CLIENT_ID
    startedAt: Timestamp
    endAt: Timestamp
    cpuCount: int
    memoryMB: int
    diskSizeMB: int
    state: Literal["running", "paused"]
    envdVersion: str = ENVD_VERSION
    alias: str | None = None
    metadata: dict[str, str]
    envdUnresponsiveAtPause: bool | None = None
    volumeMounts: list[VolumeMount] = Field(default_factory=list[VolumeMount])
    runtime: str


class Lifecycle(BaseModel):
    autoResume: bool = False
    onTimeout: Literal["kill", "pause"] = "kill"


class NetworkOut(BaseModel):
    allowPublicTraffic: bool
    allowOut: list[str]
    denyOut: list[str]
    maskRequestHost: str | None = None


class SandboxDetail(ListedSandbox):
    envdAccessToken: str | None = None
    pauseMode: Literal["full", "filesystem"] | None = None
    pausedIn: Literal["memory", "disk"] | None = None
    allowInternetAccess: bool
    domain: str | None
    network: NetworkOut
    lifecycle: Lifecycle = Lifecycle()
    health: Health
    """Warren's own."""


class SnapshotOut(BaseModel):
    """`mode`, `sizeBytes`, `sandboxID` and `createdAt` are Warren's own."""

    snapshotID: str
    names: list[str]
    mode: Literal["full", "filesystem"]
    sizeBytes: int
    sandboxID: str
    createdAt: Timestamp


class VolumeOut(BaseModel):
    """`sizeMB` is Warren's own."""

    volumeID: str
    name: str
    sizeMB: int


class VolumeAndToken(VolumeOut):
    token: str
    domain: str


class VolumeEntryStat(BaseModel):
    """`mode` has the permission bits, as a number."""

    name: str
    type: EntryType
    path: str
    size: int
    mode: int
    uid: int
    gid: int
    atime: Timestamp
    mtime: Timestamp
    ctime: Timestamp
    target: str | None = None


class SecretOut(BaseModel):
    secretID: str
    name: str
    currentVersion: int
    metadata: dict[str, str]
    createdAt: Timestamp
    updatedAt: Timestamp


class MetricOut(BaseModel):
    timestamp: Timestamp
    timestampUnix: int
    cpuCount: int
    cpuUsedPct: float
    memUsed: int
    memTotal: int
    memCache: int
    diskUsed: int
    diskTotal: int


class PoolOut(BaseModel):
    """Spares of one kind: how many are ready to be claimed, and how many the pool wants to have."""

    templateID: str
    names: list[str]
    runtime: str
    cpuCount: int
    memoryMB: int
    diskSizeMB: int
    ready: int
    wanted: int


class PruneOut(BaseModel):
    """Warren's own: what a prune has deleted."""

    images: int
    layers: int
    bytes: int
