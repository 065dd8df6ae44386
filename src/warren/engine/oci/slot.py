"""A slot: one network namespace and one address, both derived from one index."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from warren.model.errors import BadRequest

BRIDGE_NAME_MAX = 9
"""Characters: with a dot and five digits the interface's name still fits into the kernel's 15."""
RESERVED_ADDRESSES = 3
"""Of each network: its own address, the bridge's, the broadcast."""


@dataclass(frozen=True, slots=True)
class Slot:
    """`netns` is a file that holds the network namespace; `host_interface` is the bridge's end of the veth."""

    index: int
    address: IPv4Address
    gateway: IPv4Address
    prefix: int
    mac: str
    gateway_mac: str
    host_interface: str
    netns: Path


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """Which slots there can be: the numbering of one server."""

    network: IPv4Network
    bridge: str
    netns_dir: Path
    max_slots: int

    def __post_init__(self) -> None:
        if len(self.bridge) > BRIDGE_NAME_MAX or not self.bridge.isalnum():
            raise BadRequest(f"cannot use bridge name {self.bridge!r}: give up to {BRIDGE_NAME_MAX} letters and digits")
        if self.network.num_addresses <= RESERVED_ADDRESSES:
            raise BadRequest(f"cannot place sandboxes in {self.network}: give a larger network, /16 for example")

    @property
    def count(self) -> int:
        return min(self.max_slots, self.network.num_addresses - RESERVED_ADDRESSES)

    @property
    def gateway(self) -> IPv4Address:
        return self.network[1]

    def slot(self, index: int) -> Slot:
        address = self.network[index + 2]
        return Slot(
            index=index,
            address=address,
            gateway=self.gateway,
            prefix=self.network.prefixlen,
            mac=mac_of(address),
            gateway_mac=mac_of(self.gateway),
            host_interface=f"{self.bridge}.{index}",
            netns=self.netns_dir / str(index),
        )

    def indexes(self) -> Iterator[int]:
        return iter(range(self.count))


def mac_of(address: IPv4Address) -> str:
    """A locally administered MAC, one for each address."""
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x57, *address.packed))
