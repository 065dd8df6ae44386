"""The nftables rules of one server: two tables of its own, loaded in one step, changed by set elements only.

Nothing of another's tables is touched, and nothing that another table accepts is opened by ours or the reverse:
a packet has to pass all of them.
"""

import contextlib
import json
from collections.abc import Iterable
from ipaddress import IPv4Address, collapse_addresses
from pathlib import Path

from warren.engine.oci.command import run
from warren.engine.oci.slot import Slot, mac_of
from warren.model import limits
from warren.model.policy import CLOSED_BY_DEFAULT, EgressPolicy, Network

NFT_DEADLINE_S = 10.0
"""Seconds for one nft transaction; normally 5 ms."""

TABLE_SIZE = Path("/proc/sys/net/netfilter/nf_conntrack_max")
"""Of the connections that the host's kernel remembers, for all sandboxes and itself."""
SOURCE_ADDRESS = "@nh,96,32"
DESTINATION_ADDRESS = "@nh,128,32"
"""Of an IPv4 packet, as plain numbers: connections are marked with the sandbox's address, see conntrack.py."""

RULES = """
add table bridge {table}
delete table bridge {table}
table bridge {table} {{
    set owners {{ type ifname . ether_addr . ipv4_addr; }}
    set arp_owners {{ type ifname . ether_addr . ether_addr . ipv4_addr; }}
    set dropped {{ type ifname; size 65535; flags dynamic; counter; }}
    chain refuse {{
        update @dropped {{ iifname }}
        drop
    }}
    chain from_port {{
        type filter hook prerouting priority -300; policy accept;
        iifname != "{bridge}.*" accept
        ether daddr {gateway_mac} ether type ip iifname . ether saddr . ip saddr @owners accept
        arp daddr ip != {gateway} goto refuse
        ether type arp iifname . ether saddr . arp saddr ether . arp saddr ip @arp_owners accept
        goto refuse
    }}
    chain between_ports {{
        type filter hook forward priority -300; policy accept;
        iifname "{bridge}.*" goto refuse
        oifname "{bridge}.*" drop
    }}
}}
add table inet {table}
delete table inet {table}
table inet {table} {{
    set closed {{ type ipv4_addr; flags interval; elements = {{ {closed} }} }}
    set allowed {{ type ipv4_addr . ipv4_addr; flags interval; }}
    set denied {{ type ipv4_addr . ipv4_addr; flags interval; }}
    set newcomers {{ type ipv4_addr; size 65535; flags dynamic; }}
    set connections {{ type ipv4_addr; size 65535; flags dynamic; }}
    set dropped {{ type ipv4_addr; size 65535; flags dynamic; counter; }}
    chain refuse {{
        update @dropped {{ ip saddr }}
        drop
    }}
    chain to_host {{
        type filter hook input priority -5; policy accept;
        iifname != "{bridge}" accept
        ct state established,related accept
        goto refuse
    }}
    chain through_host {{
        type filter hook forward priority -5; policy accept;
        iifname "{bridge}" goto from_sandbox
        oifname "{bridge}" goto to_sandbox
    }}
    chain from_sandbox {{
        oifname "{bridge}" goto refuse
        meta nfproto != ipv4 drop
        ip saddr != {network} drop
        ct state invalid drop
        ip daddr @closed goto refuse
        fib daddr type != unicast goto refuse
        ct state established,related accept
        ct status & confirmed == 0 jump first_packet
        ct mark set {source_address}
        ip saddr . ip daddr @allowed accept
        ip saddr . ip daddr @denied goto refuse
        accept
    }}
    chain first_packet {{
        add @newcomers {{ ip saddr limit rate over {rate}/second burst {burst} packets }} goto refuse
        add @connections {{ ip saddr ct count over {connections} }} goto refuse
    }}
    chain from_host {{
        type filter hook output priority -5; policy accept;
        oifname "{bridge}" meta nfproto ipv4 ct mark set {destination_address}
    }}
    chain to_sandbox {{
        meta nfproto != ipv4 drop
        ct state established,related accept
        drop
    }}
    chain leave {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {network} oifname != "{bridge}" masquerade
    }}
}}
"""


def table_name(bridge: str) -> str:
    return f"warren_{bridge}"


def ruleset(bridge: str, network: Network) -> str:
    """Everything but the slots; replaces what an earlier server of this name left."""
    closed = ", ".join(str(block) for block in collapse_addresses(CLOSED_BY_DEFAULT))
    connections = connections_each()
    return RULES.format(
        table=table_name(bridge),
        bridge=bridge,
        network=network,
        gateway=network[1],
        gateway_mac=mac_of(network[1]),
        closed=closed,
        connections=connections,
        rate=max(1, connections // limits.CONNECTIONS_RENEWAL_S),
        burst=connections * limits.CONNECTIONS_BURST,
        source_address=SOURCE_ADDRESS,
        destination_address=DESTINATION_ADDRESS,
    )


def connections_each() -> int:
    """How many one sandbox may have open through the host."""
    with contextlib.suppress(FileNotFoundError):  # a kernel that has remembered none yet
        return min(limits.CONNECTIONS_MAX, int(TABLE_SIZE.read_text()) // limits.CONNECTIONS_SHARE)
    return limits.CONNECTIONS_MAX


def removal(bridge: str) -> str:
    table = table_name(bridge)
    return "".join(f"add table {family} {table}\ndelete table {family} {table}\n" for family in ("bridge", "inet"))


def slot_elements(verb: str, bridge: str, slots: Iterable[Slot]) -> str:
    """Lines that let these slots speak (`add`) or silence them (`delete`)."""
    table = table_name(bridge)
    lines: list[str] = []
    for slot in slots:
        triple = f'"{slot.host_interface}" . {slot.mac} . {slot.address}'
        arp = f'"{slot.host_interface}" . {slot.mac} . {slot.mac} . {slot.address}'
        # Added before it is deleted: the deletion of a missing element would undo the whole transaction.
        for step in dict.fromkeys(("add", verb)):
            lines.append(f"{step} element bridge {table} owners {{ {triple} }}\n")
            lines.append(f"{step} element bridge {table} arp_owners {{ {arp} }}\n")
    return "".join(lines)


def egress_change(bridge: str, address: IPv4Address, old: EgressPolicy, new: EgressPolicy) -> str:
    """Lines that replace one sandbox's address rules; one transaction, so no packet meets half of them."""
    lines = [
        *_egress_lines("delete", bridge, address, old),
        *_egress_lines("add", bridge, address, new),
    ]
    return "".join(lines)


def _egress_lines(verb: str, bridge: str, address: IPv4Address, policy: EgressPolicy) -> Iterable[str]:
    table = table_name(bridge)
    for name, blocks in (("allowed", policy.allow), ("denied", policy.deny)):
        # Overlapping blocks are one interval to the kernel, which refuses to add the second.
        elements = ", ".join(f"{address} . {_interval(block)}" for block in collapse_addresses(blocks))
        if elements:
            yield f"{verb} element inet {table} {name} {{ {elements} }}\n"


def _interval(block: Network) -> str:
    if block.prefixlen == 0:
        return "0.0.0.0-255.255.255.255"
    return str(block)


def forgotten_drops(bridge: str, slots: Iterable[Slot]) -> str:
    """Lines that begin the counts of these slots anew; added first, for the same reason as in `slot_elements`."""
    return "".join(
        f"{verb} element {family} {table_name(bridge)} dropped {{ {element} }}\n"
        for slot in slots
        for family, element in (("inet", slot.address), ("bridge", f'"{slot.host_interface}"'))
        for verb in ("add", "delete")
    )


def drops(bridge: str, slots: Iterable[Slot]) -> list[int]:
    """Packets of each slot that were dropped since it was last forgotten: frames at its port, and what came past it."""
    found: dict[str, int] = {}
    for family in ("inet", "bridge"):
        argv = ["nft", "--json", "list", "set", family, table_name(bridge), "dropped"]
        found |= parse_drops(run("count dropped packets", argv, NFT_DEADLINE_S))
    return [found.get(str(slot.address), 0) + found.get(slot.host_interface, 0) for slot in slots]


def parse_drops(listed: str) -> dict[str, int]:
    """By address, or by port."""
    (found,) = (part["set"] for part in json.loads(listed)["nftables"] if "set" in part)
    elements = (element["elem"] for element in found.get("elem", ()))
    return {one["val"]: int(one["counter"]["packets"]) for one in elements}


def apply(purpose: str, script: str) -> None:
    """Load one transaction: all of it or nothing."""
    if script:
        run(purpose, ["nft", "-f", "-"], NFT_DEADLINE_S, stdin=script)


def is_loaded(bridge: str) -> bool:
    """Whether both tables are still there; others may flush the machine's whole ruleset."""
    listed = run("list the network rules", ["nft", "list", "tables"], NFT_DEADLINE_S).splitlines()
    return all(f"table {family} {table_name(bridge)}" in listed for family in ("bridge", "inet"))
