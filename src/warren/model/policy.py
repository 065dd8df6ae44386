"""What a sandbox may reach, and who may reach it."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from warren.model import limits
from warren.model.errors import InvalidNetworkRule, NotSupported

Network = ipaddress.IPv4Network

ALL_TRAFFIC = ipaddress.IPv4Network("0.0.0.0/0")

CLOSED_BY_DEFAULT: tuple[Network, ...] = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # "this" network, RFC 791
        "10.0.0.0/8",  # private, RFC 1918
        "100.64.0.0/10",  # carrier-grade NAT, RFC 6598
        "127.0.0.0/8",  # loopback, RFC 1122
        "169.254.0.0/16",  # link-local and cloud metadata, RFC 3927
        "172.16.0.0/12",  # private, RFC 1918
        "192.0.0.0/24",  # IETF protocol assignments, RFC 6890
        "192.168.0.0/16",  # private, RFC 1918
        "198.18.0.0/15",  # benchmarking, RFC 2544: the sandboxes' own bridge lives here
        "224.0.0.0/4",  # multicast, RFC 5771
        "240.0.0.0/4",  # reserved and broadcast, RFC 1112
    )
)
"""Destinations that no sandbox reaches and no rule of a user can open."""


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """Outgoing traffic by address. `allow` beats `deny`; `CLOSED_BY_DEFAULT` beats both."""

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """The whole network policy of one sandbox.

    allow_internet: False is the same as denying 0.0.0.0/0.
    public_traffic: False demands the traffic token on every port but the guest's own.
    mask_host: replaces the Host header towards user ports; `${PORT}` stands for the port.
    """

    allow_internet: bool = True
    allow_out: tuple[str, ...] = ()
    deny_out: tuple[str, ...] = ()
    public_traffic: bool = True
    mask_host: str | None = None

    def egress(self) -> EgressPolicy:
        """The address rules that an engine enforces."""
        deny = parse_networks(self.deny_out, "denyOut")
        if not self.allow_internet:
            deny = (ALL_TRAFFIC, *deny)
        return EgressPolicy(allow=parse_networks(self.allow_out, "allowOut"), deny=deny)


def parse_networks(entries: Iterable[str], field: str) -> tuple[Network, ...]:
    """IPv4 addresses and CIDR blocks of `allowOut` or `denyOut`.

    Raises InvalidNetworkRule for a malformed entry or too many, NotSupported for a domain or IPv6.
    """
    listed = tuple(entries)
    if len(listed) > limits.MAX_NETWORK_RULES:
        raise InvalidNetworkRule(f"cannot use more than {limits.MAX_NETWORK_RULES} entries in {field}")
    return tuple(_parse_network(entry, field) for entry in listed)


def _parse_network(entry: str, field: str) -> Network:
    try:
        parsed = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        if field == "denyOut":
            raise InvalidNetworkRule(f"cannot use {entry!r} in denyOut: give an IPv4 address or a CIDR block") from None
        if not _looks_like_domain(entry):
            raise InvalidNetworkRule(
                f"cannot use {entry!r} in {field}: it is no address, CIDR block or domain"
            ) from None
        raise NotSupported(f"cannot filter by domain yet ({entry!r} in {field}); use IPv4 addresses or CIDR") from None
    if isinstance(parsed, ipaddress.IPv6Network):
        raise NotSupported(f"cannot use {entry!r} in {field}: IPv6 is closed in sandboxes; use IPv4")
    return parsed


_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)


def _looks_like_domain(entry: str) -> bool:
    """A host name of RFC 1123, or a pattern whose first label is `*`."""
    labels = entry.removeprefix("*.").split(".")
    return entry == "*" or (
        len(entry) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()
    )
