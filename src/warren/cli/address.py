"""Where the server is and which key to show it: from the E2B variables, else this machine's own server."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from warren.model.errors import Unauthenticated
from warren.settings import Settings

LOCAL_KEY = "local-key"


@dataclass(frozen=True, slots=True)
class Address:
    """api_key None: there is none to be found. is_local: this machine's own server, whose files we may use."""

    api_url: str
    sandbox_url: str
    api_key: str | None
    is_local: bool
    key_hint: str = ""

    def key(self) -> str:
        if self.api_key is None:
            raise Unauthenticated(self.key_hint)
        return self.api_key


def find(environ: Mapping[str, str], settings: Settings) -> Address:
    """The local key goes to this machine's own server only, never to one that a variable names."""
    own_api, own_gateway = own_urls(settings)
    api_url = environ.get("E2B_API_URL", "").rstrip("/") or own_api
    sandbox_url = environ.get("E2B_SANDBOX_URL", "").rstrip("/") or own_gateway
    is_local = same_place(api_url, own_api)
    key, hint = environ.get("E2B_API_KEY") or None, f"cannot ask {api_url} without a key: set E2B_API_KEY"
    if key is None and is_local:
        key, hint = _read_key(settings.state_dir / LOCAL_KEY)
    return Address(api_url, sandbox_url, key, is_local, hint)


def own_urls(settings: Settings) -> tuple[str, str]:
    """The API and the gateway of the server with these settings, as this machine reaches them."""
    host = _reachable(settings.host)
    return f"http://{host}:{settings.api_port}", f"http://{host}:{settings.gateway_port}"


def same_place(url: str, own: str) -> bool:
    one, other = urlsplit(url), urlsplit(own)
    names = {"localhost": "127.0.0.1"}
    return (one.scheme, names.get(one.hostname or "", one.hostname), one.port) == (
        other.scheme,
        names.get(other.hostname or "", other.hostname),
        other.port,
    )


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reachable(host: str) -> str:
    """A server that listens on every address is reached through loopback."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    return str(address) if address.version == 4 else f"[{address}]"


def _read_key(file: Path) -> tuple[str | None, str]:
    try:
        return file.read_text().strip() or None, f"cannot use {file}: it is empty; run `warren env` as root"
    except FileNotFoundError:
        return None, "cannot find a key: start the server once with `warren serve`, or set E2B_API_KEY"
    except OSError as error:
        return None, f"cannot read {file} ({error.strerror}): run as root, or set E2B_API_KEY"
