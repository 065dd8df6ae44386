"""Which registries are reached how: mirrors, plain HTTP, private addresses; and the files that tell skopeo."""

import base64
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from warren.images.reference import Reference, is_host
from warren.model.build import RegistryLogin
from warren.model.errors import BadRequest

HTTP_PORT = 80
HTTPS_PORT = 443
LOCALHOST = "localhost"

Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Registries:
    """`mirrors` maps a registry to a place that is asked first. `insecure` ones may speak plain HTTP or show any
    certificate. These, `private` ones and mirrors may have addresses that are not of the public internet.
    `ecr_endpoint`: where AWS keys are exchanged for logins, if not at the region's own. `proxy`: an HTTP proxy on
    the way to public registries, with its credentials."""

    mirrors: Mapping[str, str]
    insecure: frozenset[str]
    private: frozenset[str]
    ecr_endpoint: str = ""
    proxy: str = field(default="", repr=False)

    @property
    def trusted(self) -> frozenset[Endpoint]:
        """What may be reached wherever it is: somebody with a say over this machine has listed it."""
        places = {place.partition("/")[0] for place in self.mirrors.values()}
        return frozenset(each for host in self.insecure | self.private | places for each in endpoints(host))

    @property
    def local(self) -> Sequence[Endpoint]:
        """Trusted ones on this machine's own loopback."""
        return sorted(each for each in self.trusted if is_loopback(each[0]))

    def skopeo_configuration(self) -> str:
        """registries.conf, version 2 (containers-registries.conf(5))."""
        lines = ["unqualified-search-registries = []"]
        for host in sorted(self.insecure | self.mirrors.keys()):
            lines += ["[[registry]]", f'location = "{host}"']
            if host in self.insecure:
                lines.append("insecure = true")
            if host in self.mirrors:
                place = self.mirrors[host]
                lines += ["[[registry.mirror]]", f'location = "{place}"']
                if place.partition("/")[0] in self.insecure:
                    lines.append("insecure = true")
        return "\n".join(lines) + "\n"


def parse_registries(
    mirrors: Sequence[str], insecure: Sequence[str], private: Sequence[str], *, ecr_endpoint: str = "", proxy: str = ""
) -> Registries:
    """From settings: `registry=host[:port][/path]`, and hosts with or without a port. Raises BadRequest."""
    for host in (*insecure, *private):
        _check_host(host)
    found: dict[str, str] = {}
    for text in mirrors:
        registry, _, place = text.partition("=")
        host, _, path = place.partition("/")
        _check_host(registry)
        _check_host(host)
        if path.strip("abcdefghijklmnopqrstuvwxyz0123456789._-/"):
            raise BadRequest(f"cannot use registry mirror {text!r}: give registry=host[:port][/path]")
        found[registry] = place
    return Registries(found, frozenset(insecure), frozenset(private), _checked_url(ecr_endpoint), _checked_proxy(proxy))


def credentials(reference: Reference, login: RegistryLogin | None) -> str:
    """The file that skopeo takes a login from, for this registry alone."""
    if login is None:
        return json.dumps({"auths": {}})
    pair = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    return json.dumps({"auths": {reference.host: {"auth": pair}}})


def endpoints(host: str) -> Sequence[Endpoint]:
    """What may be dialled for `host[:port]`; a registry without a port may be asked for plain HTTP too."""
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit():
        return [(bare(name), int(port))]
    return [(bare(host), HTTPS_PORT), (bare(host), HTTP_PORT)]


def bare(host: str) -> str:
    return host.strip("[]").lower()


def is_loopback(host: str) -> bool:
    if host == LOCALHOST:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked_url(text: str) -> str:
    url = urlsplit(text)
    if text and (url.scheme not in ("http", "https") or not is_host(url.netloc) or url.path.strip("/") or url.query):
        raise BadRequest(f"cannot use the ECR endpoint {text!r} of the settings: give https://host[:port]")
    return text


def _checked_proxy(text: str) -> str:
    """Not shown in the error: a password may be in it."""
    try:
        url = urlsplit(text)
        is_one = (
            url.scheme == "http" and url.port and is_host(url.netloc.rpartition("@")[2]) and not url.path.strip("/")
        )
    except ValueError:
        is_one = False
    if text and not is_one:
        raise BadRequest("cannot use the registry proxy of the settings: give http://[user:password@]host:port")
    return text


def _check_host(host: str) -> None:
    if not is_host(host):
        raise BadRequest(f"cannot use registry {host!r} of the settings: give host or host:port")
