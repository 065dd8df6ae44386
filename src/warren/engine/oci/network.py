"""The bridge, and the network namespaces and veth pairs of slots.

All of it blocks for a few milliseconds and some of it changes the calling thread's network namespace: call it
through `on_thread`, which gives every call a thread of its own.
"""

import contextlib
import errno
import os
from collections.abc import Generator, Iterable, Sequence
from ipaddress import IPv4Interface
from pathlib import Path

from warren.engine.oci import libc
from warren.engine.oci.netlink import IPRoute, NetlinkError, Routes
from warren.engine.oci.slot import Slot, SlotPlan, mac_of
from warren.engine.oci.threads import in_passing_thread
from warren.model.errors import EngineFailed

GUEST_INTERFACE = "eth0"
STACKED_MOUNTS_MAX = 100
RT_SCOPE_LINK = 253
NUD_PERMANENT = 0x80
NTF_MASTER = 0x04


class Network:
    """What this server has of links. Knows nothing of which slot is in use."""

    def __init__(self, plan: SlotPlan) -> None:
        self._plan = plan

    def open(self, *, in_use: bool) -> None:
        """Make the bridge anew, or keep it where sandboxes are on it. No IPv6 on it."""
        plan = self._plan
        if not in_use:
            self.close()  # one of an earlier server may have had other addresses
        with IPRoute() as ip:
            if _index(ip, plan.bridge) is None:
                ip.link("add", ifname=plan.bridge, kind="bridge", br_mcast_snooping=0, address=mac_of(plan.gateway))
                _sysctl(f"ipv6/conf/{plan.bridge}/disable_ipv6", "1")
            index = _require(ip, plan.bridge)
            with _existing_is_fine():
                ip.addr("add", index=index, address=str(plan.gateway), prefixlen=plan.network.prefixlen)
            ip.link("set", index=index, state="up")
        _sysctl(f"ipv4/conf/{plan.bridge}/rp_filter", "1")
        _sysctl(f"ipv4/conf/{plan.bridge}/send_redirects", "0")
        _sysctl(f"ipv4/conf/{plan.bridge}/accept_redirects", "0")

    def close(self) -> None:
        """Remove the bridge; nobody may be on it any more."""
        with IPRoute() as ip:
            index = _index(ip, self._plan.bridge)
            if index is not None:
                ip.link("del", index=index)

    def prepare(self, slots: Sequence[Slot]) -> None:
        """Make namespace and veth pair of each slot. The rules that bind each slot must be loaded before."""
        host_namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            in_passing_thread(lambda: [_make_namespace(slot, host_namespace) for slot in slots])
        finally:
            os.close(host_namespace)
        with IPRoute() as host:
            bridge = _require(host, self._plan.bridge)
            for slot in slots:
                _plug_in(host, bridge, slot)

    def remove(self, slots: Iterable[Slot]) -> None:
        """Undo `prepare`, also a half-made one. Idempotent."""
        with IPRoute() as host:
            bridge = _index(host, self._plan.bridge)
            for slot in slots:
                if bridge is not None:
                    with _absent_is_fine():
                        host.neigh("del", dst=str(slot.address), lladdr=slot.mac, ifindex=bridge)
                port = _index(host, slot.host_interface)
                if port is not None:
                    with _absent_is_fine():
                        host.link("del", index=port)
                release_netns(slot.netns)

    def ports(self) -> list[str]:
        """Names of this server's veth ends that exist."""
        with os.scandir("/sys/class/net") as found:
            return sorted(entry.name for entry in found if entry.name.startswith(f"{self._plan.bridge}."))


def release_netns(path: Path) -> None:
    """Let go of a namespace file; the namespace itself ends with its last process."""
    with contextlib.suppress(OSError):
        # Several runsc that start at the same time mount theirs upon each other.
        for _ in range(STACKED_MOUNTS_MAX):
            libc.umount(str(path))
    path.unlink(missing_ok=True)


def _make_namespace(slot: Slot, host_namespace: int) -> None:
    libc.unshare(libc.CLONE_NEWNET)
    _sysctl("ipv6/conf/all/disable_ipv6", "1")
    _sysctl("ipv6/conf/default/disable_ipv6", "1")
    # The namespace belongs to the host's root, so capabilities of root inside do not count in it.
    _sysctl("ipv4/ip_unprivileged_port_start", "0")
    _sysctl("ipv4/ping_group_range", "0 2147483647")
    slot.netns.touch(mode=0o400, exist_ok=False)
    libc.mount("/proc/thread-self/ns/net", str(slot.netns), None, libc.MS_BIND)
    with IPRoute() as ip:
        peer = {"ifname": slot.host_interface, "net_ns_fd": host_namespace}
        ip.link("add", ifname=GUEST_INTERFACE, kind="veth", address=slot.mac, peer=peer)
        index = _require(ip, GUEST_INTERFACE)
        ip.link("set", index=_require(ip, "lo"), state="up")
        ip.addr("add", index=index, address=str(slot.address), prefixlen=slot.prefix)
        ip.link("set", index=index, state="up")
        ip.neigh("add", dst=str(slot.gateway), lladdr=slot.gateway_mac, ifindex=index, state=NUD_PERMANENT)
        ip.route("add", dst="default", gateway=str(slot.gateway))
        _look_for_no_neighbours(ip, index, slot)


def _look_for_no_neighbours(ip: Routes, index: int, slot: Slot) -> None:
    """The kernel has one table of neighbours, of 1,024, for all namespaces: who asks for each address of a large one
    would fill it for the host. So under crun they cannot be reached from within; gVisor has a table of its own."""
    ip.route("add", dst=f"{slot.gateway}/32", oif=index, scope=RT_SCOPE_LINK)
    for half in IPv4Interface(f"{slot.gateway}/{slot.prefix}").network.subnets():  # goes before the route of the whole
        ip.route("add", dst=str(half), type="unreachable")


def _plug_in(host: Routes, bridge: int, slot: Slot) -> None:
    port = _require(host, slot.host_interface)
    _sysctl(f"ipv6/conf/{slot.host_interface}/disable_ipv6", "1")
    host.link("set", index=port, master=bridge)
    # Isolated: never to another port. No learning and no flooding: the entries below are the only way.
    host.brport("set", index=port, isolated=1, learning=0, unicast_flood=0, mcast_flood=0, bcast_flood=0)
    host.link("set", index=port, state="up")
    host.fdb("append", ifindex=port, lladdr=slot.mac, flags=NTF_MASTER)
    host.neigh("replace", dst=str(slot.address), lladdr=slot.mac, ifindex=bridge, state=NUD_PERMANENT)


def _index(ip: Routes, name: str) -> int | None:
    return next(iter(ip.link_lookup(ifname=name)), None)


def _require(ip: Routes, name: str) -> int:
    index = _index(ip, name)
    if index is None:
        raise EngineFailed(f"cannot prepare the network: interface {name} is not there")
    return index


def _sysctl(name: str, value: str) -> None:
    try:
        Path("/proc/sys/net", name).write_text(value)
    except FileNotFoundError:
        # A kernel without IPv6 has none of its switches.
        if not name.startswith("ipv6/"):
            raise


@contextlib.contextmanager
def _existing_is_fine() -> Generator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


@contextlib.contextmanager
def _absent_is_fine() -> Generator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL):
            raise
