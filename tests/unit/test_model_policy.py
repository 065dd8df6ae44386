"""Network rules: what is read, what is refused, and by which error."""

from ipaddress import IPv4Network

import pytest

from warren.model import limits
from warren.model.errors import InvalidNetworkRule, NotSupported
from warren.model.policy import ALL_TRAFFIC, CLOSED_BY_DEFAULT, NetworkPolicy, parse_networks


def test_addresses_and_blocks_are_read() -> None:
    assert parse_networks(["203.0.113.7", "198.51.100.9/24"], "allowOut") == (
        IPv4Network("203.0.113.7/32"),
        IPv4Network("198.51.100.0/24"),
    )


def test_no_internet_is_a_denial_of_everything() -> None:
    assert NetworkPolicy(allow_internet=False).egress().deny == (ALL_TRAFFIC,)


@pytest.mark.parametrize("entry", ["", "a b", "-", "1.2.3.4/33", "256.1.1.1", "exa_mple..com", "a" * 300, "1.2.3"])
def test_rubbish_is_invalid(entry: str) -> None:
    with pytest.raises(InvalidNetworkRule):
        parse_networks([entry], "allowOut")


@pytest.mark.parametrize("entry", ["example.com", "*.example.com", "*", "::1", "2001:db8::/32"])
def test_domains_and_ipv6_are_refused_by_name(entry: str) -> None:
    with pytest.raises(NotSupported, match=entry.replace("*", r"\*").replace(".", r"\.")):
        parse_networks([entry], "allowOut")


def test_a_domain_in_a_denial_is_invalid_for_good() -> None:
    with pytest.raises(InvalidNetworkRule):
        parse_networks(["example.com"], "denyOut")


def test_the_number_of_rules_has_a_limit() -> None:
    with pytest.raises(InvalidNetworkRule, match=str(limits.MAX_NETWORK_RULES)):
        parse_networks(["203.0.113.1"] * (limits.MAX_NETWORK_RULES + 1), "denyOut")


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "172.31.255.1", "192.168.255.1", "169.254.169.254", "127.0.0.1", "100.64.255.1", "224.0.0.251"],
)
def test_private_metadata_and_multicast_addresses_are_closed_by_default(address: str) -> None:
    assert any(IPv4Network(address).subnet_of(block) for block in CLOSED_BY_DEFAULT)
