"""A slot's own wire, for an attacker who has what root inside lacks: the right to send frames as he likes."""

import json
import socket
import subprocess
from pathlib import Path

from tests.e2e.internet import Internet
from tests.security.lab import Lab
from warren.contracts.engine import GUEST_PORT

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


def forge(lab: Lab, internet: Internet) -> tuple[list[str], list[str]]:
    """Send forged frames from the first sandbox's wire: those that got to the bridge, and to its neighbour."""
    slots = [json.loads(lab.record(placement).read_text())["slot"] for placement in (lab.one, lab.two)]
    macs = [
        f"02:57:{socket.inet_aton(address).hex(':')}" for address in (lab.one.address, lab.gateway, lab.two.address)
    ]
    with Sniffer(lab.bridge) as on_bridge, Sniffer(f"{lab.bridge}.{slots[1]}") as at_neighbour:
        sent = in_netns(
            lab.bridge, slots[0], "/usr/bin/python3", "-c", SPOOF, *macs,
            lab.one.address, lab.two.address, lab.gateway, internet.servers[0],
        )  # fmt: skip
        assert sent.stdout == "sent\n", sent.stderr
    return on_bridge.frames, at_neighbour.frames


def in_netns(bridge: str, slot: int, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a host's program on a slot's wire: an attacker who has the interface itself."""
    path = Path("/run/warren", bridge, "netns", str(slot))
    return subprocess.run(["nsenter", f"--net={path}", *argv], capture_output=True, text=True, timeout=30)


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
