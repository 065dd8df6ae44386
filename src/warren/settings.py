"""All settings, read once from the environment and handed down by `wiring`. Nobody else reads the environment."""

import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Network
from pathlib import Path

from warren.model.errors import BadRequest

DEFAULT_STATE_DIR = Path("/var/lib/warren")
DEFAULT_CACHE_DIR = Path("/var/cache/warren")
DEFAULT_NETWORK = IPv4Network("198.18.0.0/16")
"""Of the block for benchmarks (RFC 2544): nobody routes it, so it collides with no real network."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field is set by the environment variable `WARREN_` + its name in capitals.

    state_dir: everything that a restart must find. cache_dir: built artefacts, safe to delete while nothing runs.
    host: what API and gateway listen on. domain: what `get_host()` of the clients is made of; its port is that of
    the TLS listener. tls_cert, tls_key: files of a certificate for `*.<domain>`; without them one is made.
    network: the sandboxes' addresses; the first is the bridge. bridge: the interface's name, also the prefix of all
    interfaces, rules and cgroups of this server, so that two servers on one machine stay apart.
    server_name: what the servers that share a database call this one.
    pool_slots: network slots prepared ahead; a burst of creates is quicker with as many (1 MiB and 10 ms each).
    pool: spare sandboxes of built-in templates kept started, as `template=count` or
    `template/runtime=count`; pool_sandboxes and pool_memory_mb bound all spares together, those kept for what was asked
    for lately among them; 0 turns the pool off. prime_templates: take memory of built-in templates that have services,
    once per machine, so that their sandboxes start with those up.
    max_slots: sandboxes at once on this machine.
    memory_overcommit, disk_overcommit: how often the machine's memory and the disk of the state folder may be promised
    to sandboxes. Idle ones take a twentieth of theirs and less, so 10 lets 200 of 1 GiB run on 24 GiB; whether memory
    is used up is watched besides.
    volume_mb: size in MiB of a volume for which none is asked; what is not written takes no disk.
    idle: how deep sandboxes of a template sleep while nobody uses them, see `model.idle`.
    registry_mirrors: places asked first for images of a registry, as `registry=host[:port][/path]`.
    registry_insecure: registries that may speak plain HTTP or show any certificate. registry_private: others whose
    addresses are not of the public internet. Registries that nobody listed are reached at public addresses only.
    registry_proxy: an HTTP proxy on the way to public registries, as http://[user:password@]host:port.
    ecr_endpoint: where AWS keys are exchanged for logins of registries, as https://host; by default the region's own.
    log_file: where the server also writes its log, for `warren logs`. otlp_endpoint: where traces go, none by default.
    checkpoint_key_file: 32 random bytes that checkpoints are encrypted with; none leaves them in the open.
    secrets_key_file: file of the keys that values of secrets are sealed with, one a line in 64 hexadecimal digits, the
    one in force first; without it a key is made in the state folder. secrets_key: the same, as text.
    audit_required: refuse every change while the audit log cannot be written.
    stop_sandboxes_on_exit: a server that is told to stop ends its sandboxes first, instead of leaving them running.
    """

    state_dir: Path = DEFAULT_STATE_DIR
    cache_dir: Path = DEFAULT_CACHE_DIR
    host: str = "127.0.0.1"
    api_port: int = 3000
    gateway_port: int = 3002
    tls_port: int = 3443
    domain: str = "e2b.localhost"
    tls_cert: str = ""
    tls_key: str = ""
    runtime: str = "runsc"
    runsc_path: str = ""
    crun_path: str = "crun"
    guestd_path: str = ""
    database_url: str = ""
    server_name: str = ""
    network: IPv4Network = DEFAULT_NETWORK
    bridge: str = "warren0"
    dns_servers: tuple[str, ...] = ("1.1.1.1", "8.8.8.8")
    pool_slots: int = 8
    pool: tuple[str, ...] = ("base=2",)
    pool_sandboxes: int = 8
    pool_memory_mb: int = 8192
    prime_templates: bool = True
    idle: tuple[str, ...] = ()
    max_slots: int = 1000
    registry_mirrors: tuple[str, ...] = ()
    registry_insecure: tuple[str, ...] = ()
    registry_private: tuple[str, ...] = ()
    registry_proxy: str = field(default="", repr=False)
    ecr_endpoint: str = ""
    memory_overcommit: int = 10
    disk_overcommit: int = 10
    volume_mb: int = 5120
    log_level: str = "info"
    log_json: bool = False
    log_file: str = ""
    otlp_endpoint: str = ""
    checkpoint_key_file: str = ""
    secrets_key_file: str = ""
    secrets_key: str = field(default="", repr=False)
    audit_required: bool = True
    stop_sandboxes_on_exit: bool = False

    @property
    def public_domain(self) -> str:
        """The `domain` of create answers: host names of sandboxes are `<port>-<id>.<public_domain>`."""
        return self.domain if self.tls_port == 443 else f"{self.domain}:{self.tls_port}"

    @property
    def templates_dir(self) -> Path:
        return self.state_dir / "templates"

    @property
    def images_dir(self) -> Path:
        return self.state_dir / "images"

    @property
    def layers_dir(self) -> Path:
        """Which layer of which build is in which checkpoint."""
        return self.state_dir / "build-cache"

    @property
    def uploads_dir(self) -> Path:
        """Archives for COPY steps: one folder for each template, a file for each hash."""
        return self.state_dir / "uploads"

    @property
    def tls_dir(self) -> Path:
        return self.state_dir / "tls"

    @property
    def audit_dir(self) -> Path:
        return self.state_dir / "audit"

    @property
    def own_secrets_key(self) -> Path:
        """The key that is used when none is given."""
        return self.state_dir / "secrets.key"

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.state_dir / 'warren.db'}"

    @property
    def server(self) -> str:
        return self.server_name or socket.gethostname()

    @property
    def runsc(self) -> str:
        return self.runsc_path or _found("runsc", self.cache_dir / "bin" / "runsc")

    @property
    def guestd(self) -> str:
        return self.guestd_path or _found("", self.cache_dir / "bin" / "guestd")


def _found(name: str, cached: Path) -> str:
    """The cached build wins: set-up put it there because it is the right version."""
    return str(cached) if cached.exists() or not name else (shutil.which(name) or name)


def load(environ: Mapping[str, str]) -> Settings:
    """Settings from `WARREN_*` variables. Raises BadRequest that names the variable it cannot read."""
    changes: dict[str, object] = {}
    for setting in fields(Settings):
        variable = f"WARREN_{setting.name.upper()}"
        if variable in environ:
            changes[setting.name] = _parse(variable, environ[variable], setting.default)
    return replace(Settings(), **changes)  # pyright: ignore[reportArgumentType]


def _parse(variable: str, text: str, default: object) -> object:
    try:
        match default:
            case bool():
                return {"1": True, "true": True, "0": False, "false": False}[text.lower()]
            case int():
                return int(text)
            case Path():
                return Path(text).absolute()
            case IPv4Network():
                return IPv4Network(text)
            case tuple():
                return tuple(part.strip() for part in text.split(",") if part.strip())
            case _:
                return text
    except (ValueError, KeyError):
        raise BadRequest(f"cannot use {variable}={text!r}: expected something like {default!s}") from None
