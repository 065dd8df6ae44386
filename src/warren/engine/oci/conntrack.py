"""Connections that the host's kernel remembers of a sandbox's address.

They are forgotten before the address is given to the next one: a reply that comes late would count as its own.
The rules mark each connection with the sandbox's address (firewall.py), so that the kernel finds them by itself.
"""

import sys
from collections.abc import Set
from ipaddress import IPv4Address

from warren.engine.oci.netlink import NFCTSocket

WHOLE_MARK = 0xFFFFFFFF


def mark_of(address: IPv4Address) -> int:
    """The rules copy the address as it is in the packet."""
    return int.from_bytes(address.packed, sys.byteorder)


def forget_connections(addresses: Set[IPv4Address]) -> None:
    """Of these sandboxes, in both directions."""
    with NFCTSocket() as conntrack:
        for address in addresses:
            conntrack.flush(mark=mark_of(address), mark_mask=WHOLE_MARK)
