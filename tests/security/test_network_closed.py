"""What a sandbox must not reach, with traps that would catch a leak. Nothing is sent to another machine."""

import asyncio
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.e2e.internet import Internet
from tests.security.lab import Lab
from warren.contracts.engine import GUEST_PORT
from warren.model.policy import ALL_TRAFFIC, EgressPolicy

pytestmark = [pytest.mark.root, pytest.mark.anyio, pytest.mark.timeout(180)]


@contextmanager
def listening(address: str, port: int = 0) -> Iterator[tuple[tuple[str, int], list[str]]]:
    """A TCP server of the host and who called it."""
    callers: list[str] = []
    with socket.create_server((address, port), backlog=64) as server:

        def serve() -> None:
            while True:
                try:
                    peer, (caller, _) = server.accept()
                except OSError:
                    return
                callers.append(caller)
                peer.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname(), callers
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def host_addresses() -> list[str]:
    shown = subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, text=True, check=True, timeout=10)
    return [info["local"] for link in json.loads(shown.stdout) for info in link["addr_info"]]


def in_netns(lab: Lab, slot: int, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a host's program on a slot's wire: an attacker who has the interface itself."""
    path = Path("/run/warren", lab.bridge, "netns", str(slot))
    return subprocess.run(["nsenter", f"--net={path}", *argv], capture_output=True, text=True, timeout=30)


async def test_the_internet_is_open(box: Lab, internet: Internet) -> None:
    servers = {(address, 80) for address in internet.servers}
    assert await asyncio.to_thread(box.reachable, *servers) == servers
    assert {caller for reached, caller in internet.visits() if reached in internet.servers} == {internet.near}


@pytest.mark.threat("B3")
async def test_private_link_local_and_metadata_addresses_are_closed(box: Lab, internet: Internet) -> None:
    assert internet.traps, "the traps are what this test is about"
    assert await asyncio.to_thread(box.reachable, *((trap, 80) for trap in internet.traps)) == set()
    assert not [visit for visit in internet.visits() if visit[0] in internet.traps]


@pytest.mark.threat("B3")
async def test_no_rule_of_a_user_opens_them(box: Lab, internet: Internet) -> None:
    everything = EgressPolicy(allow=(ALL_TRAFFIC, *(IPv4Network(trap) for trap in internet.traps)))
    await box.engine.set_egress(box.one.id, everything)
    try:
        assert await asyncio.to_thread(box.reachable, *((trap, 80) for trap in internet.traps)) == set()
    finally:
        await box.engine.set_egress(box.one.id, EgressPolicy())
    assert not [visit for visit in internet.visits() if visit[0] in internet.traps]


@pytest.mark.threat("B1")
async def test_every_address_of_the_host_is_closed(box: Lab, internet: Internet) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(listening(address)) for address in host_addresses()]
        assert any(address == box.gateway for (address, _), _ in servers)
        found = await asyncio.to_thread(box.reachable, *(target for target, _ in servers))
        assert found == set()
        assert [callers for _, callers in servers if callers] == []


@pytest.mark.threat("B2")
async def test_the_other_sandbox_is_closed(box: Lab) -> None:
    assert await asyncio.to_thread(box.reachable, (box.two.address, GUEST_PORT)) == set()
    assert await asyncio.to_thread(box.reachable, (box.one.address, GUEST_PORT), where=box.two) == set()


@pytest.mark.threat("B5")
async def test_denied_blocks_are_closed_and_allowed_ones_within_them_open(box: Lab, internet: Internet) -> None:
    first, second = internet.servers[:2]
    both = ((first, 80), (second, 80))
    await box.engine.set_egress(box.one.id, EgressPolicy(allow=(IPv4Network(first),), deny=(ALL_TRAFFIC,)))
    try:
        assert await asyncio.to_thread(box.reachable, *both) == {(first, 80)}
        assert await asyncio.to_thread(box.reachable, *both, where=box.two) == set(both)
        await box.engine.set_egress(box.one.id, EgressPolicy(deny=(IPv4Network(second),)))
        assert await asyncio.to_thread(box.reachable, *both) == {(first, 80)}
        await box.engine.set_egress(box.one.id, EgressPolicy(deny=(ALL_TRAFFIC,)))
        assert await asyncio.to_thread(box.reachable, *both) == set()
        assert await asyncio.to_thread(box.run, "echo inbound") == "inbound\n"
    finally:
        await box.engine.set_egress(box.one.id, EgressPolicy())
    assert await asyncio.to_thread(box.reachable, *both) == set(both)


@pytest.mark.threat("B2")
async def test_there_is_no_ipv6(box: Lab) -> None:
    assert "inet6" not in await asyncio.to_thread(box.run, "ip -6 addr show dev eth0")


SPOOF = """
import socket, struct, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("eth0", 0))
mac = lambda text: bytes.fromhex(text.replace(":", ""))
own, bridge, victim_mac = mac(sys.argv[1]), mac(sys.argv[2]), mac(sys.argv[3])
address, victim, gateway = (socket.inet_aton(text) for text in sys.argv[4:7])
server = socket.inet_aton(sys.argv[7])
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data)); total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
def packet(source, target):
    udp = struct.pack("!HHHH", 5353, 5353, 13, 0) + b"spoof"
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 33, 0, 0, 64, 17, 0, source, target)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp
def arp(operation, hardware, protocol, target):
    return struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, hardware, protocol, b"\\xff" * 6, target)
frame = lambda target, source, kind, body: wire.send(target + source + struct.pack("!H", kind) + body)
everyone = b"\\xff" * 6
for _ in range(3):
    frame(bridge, own, 0x0800, packet(victim, server))         # another's address
    frame(bridge, victim_mac, 0x0800, packet(victim, server))  # another's address and MAC
    frame(bridge, victim_mac, 0x0800, packet(address, server)) # another's MAC
    frame(bridge, own, 0x0800, packet(gateway, server))        # the host's address
    frame(victim_mac, own, 0x0800, packet(address, victim))    # straight to the neighbour
    frame(everyone, own, 0x0800, packet(address, b"\\xff" * 4)) # broadcast
    frame(everyone, own, 0x0806, arp(1, own, victim, gateway)) # "I am the neighbour"
    frame(everyone, own, 0x0806, arp(2, own, gateway, victim)) # "I am the gateway"
    frame(everyone, own, 0x86DD, b"\\x60" + bytes(39))          # IPv6
    frame(everyone, own, 0x88B5, bytes(46))                    # anything else
    frame(bridge, own, 0x8100, b"\\x00\\x05\\x08\\x00" + packet(address, server))  # in a VLAN
print("sent")
"""


@pytest.mark.threat("B2", "B4")
async def test_forged_frames_do_not_leave_the_slot(box: Lab, internet: Internet) -> None:
    """On the wire itself, with what root inside lacks: the right to send raw frames."""
    slots = [json.loads(box.record(placement).read_text())["slot"] for placement in (box.one, box.two)]
    macs = [
        f"02:57:{socket.inet_aton(address).hex(':')}" for address in (box.one.address, box.gateway, box.two.address)
    ]
    neighbour = subprocess.run(["ip", "neigh", "show", "dev", box.bridge], capture_output=True, text=True, timeout=10)
    with Sniffer(box.bridge) as on_bridge, Sniffer(f"{box.bridge}.{slots[1]}") as at_neighbour:
        sent = in_netns(
            box, slots[0], "/usr/bin/python3", "-c", SPOOF, *macs,
            box.one.address, box.two.address, box.gateway, internet.servers[0],
        )  # fmt: skip
        assert sent.stdout == "sent\n", sent.stderr
    assert on_bridge.frames == []
    assert at_neighbour.frames == []
    after = subprocess.run(["ip", "neigh", "show", "dev", box.bridge], capture_output=True, text=True, timeout=10)
    assert after.stdout == neighbour.stdout


@pytest.mark.threat("B4")
async def test_root_inside_cannot_open_raw_sockets(box: Lab) -> None:
    tried = """python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'
    python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'"""
    assert (await asyncio.to_thread(box.run, tried)).count("Error") == 2


class Sniffer:
    """Frames that an interface of the host carries, other than those of the tests' own shell."""

    def __init__(self, interface: str) -> None:
        self.frames: list[str] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((interface, 3))

    def __enter__(self) -> "Sniffer":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.settimeout(0.3)
        try:
            while True:
                frame = self._socket.recv(65536)
                if not _is_shell(frame):
                    self.frames.append(frame[:64].hex())
        except TimeoutError:
            self._socket.close()


def _is_shell(frame: bytes) -> bool:
    ports = GUEST_PORT.to_bytes(2, "big")
    return frame[12:14] == b"\x08\x00" and frame[23] == 6 and ports in (frame[34:36], frame[36:38])
