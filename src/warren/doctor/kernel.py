"""What the kernel must give: pure questions about a Machine."""

import re

from warren.doctor.finding import Finding, Weight
from warren.doctor.machine import Machine

OLDEST_KERNEL = (5, 19)
"""The first with idmapped mounts on EROFS and below overlayfs."""
NEEDED_CONTROLLERS = ("cpu", "memory", "pids")
SYS_MOUNT_SETATTR = 442
"""The same number on every architecture."""


def kernel(machine: Machine) -> Finding:
    found = re.match(r"(\d+)\.(\d+)", machine.release())
    return Finding(
        name="kernel",
        found=machine.release(),
        ok=found is not None and (int(found[1]), int(found[2])) >= OLDEST_KERNEL,
        why="idmapped mounts and EROFS, on which every sandbox's root file system stands",
        remedy="boot a kernel of 5.19 or newer; Debian 12 has 6.1",
    )


def root(machine: Machine) -> Finding:
    return Finding(
        name="root",
        found=f"uid {machine.euid()}",
        ok=machine.euid() == 0,
        why="makes namespaces, mounts, cgroups and firewall rules",
        remedy="run as root, with sudo for example",
    )


def cgroups(machine: Machine) -> Finding:
    layout, controllers = _cgroup_layout(machine)
    missing = [name for name in NEEDED_CONTROLLERS if name not in controllers]
    found = f"{layout}: {', '.join(name for name in NEEDED_CONTROLLERS if name in controllers) or 'no controller'}"
    return Finding(
        name="cgroups",
        found=found if layout else None,
        ok=bool(layout) and not missing,
        why="hold each sandbox to its memory, CPU and processes",
        remedy=f"mount /sys/fs/cgroup with the controllers {', '.join(missing or NEEDED_CONTROLLERS)}",
    )


def _cgroup_layout(machine: Machine) -> tuple[str, set[str]]:
    """v2, v1 or hybrid (v1's controllers beside a v2 mount that has none), and the controllers that are mounted."""
    mounts = [line.split() for line in (machine.text("/proc/self/mounts") or "").splitlines()]
    unified = {fields[1] for fields in mounts if len(fields) > 3 and fields[2] == "cgroup2"}
    legacy = {
        option for fields in mounts if len(fields) > 3 and fields[2] == "cgroup" for option in fields[3].split(",")
    }
    if "/sys/fs/cgroup" in unified:
        return "v2", set((machine.text("/sys/fs/cgroup/cgroup.controllers") or "").split())
    if legacy:
        return ("hybrid" if unified else "v1"), legacy
    return "", set()


def filesystems(machine: Machine) -> Finding:
    loaded = {line.split()[-1] for line in (machine.text("/proc/filesystems") or "").splitlines() if line.split()}
    needed = ("erofs", "overlay", "ext4")
    missing = [name for name in needed if name not in loaded and not machine.has_module(name)]
    return Finding(
        name="file systems",
        found=", ".join(name for name in needed if name not in missing) or None,
        ok=not missing,
        why="a shared read-only image (EROFS) under a layer of each sandbox's own (overlayfs, ext4)",
        remedy=f"use a kernel that has {', '.join(missing or needed)}",
    )


def idmapped_mounts(machine: Machine) -> Finding:
    known = machine.knows_syscall(SYS_MOUNT_SETATTR)
    return Finding(
        name="idmapped mounts",
        found="mount_setattr" if known else None,
        ok=known,
        why="root inside a sandbox is nobody on this machine, with one image shared by all",
        remedy="use a kernel of 5.19 or newer, and no seccomp filter around Warren",
    )


def user_namespaces(machine: Machine) -> Finding:
    limit = (machine.text("/proc/sys/user/max_user_namespaces") or "").strip()
    return Finding(
        name="user namespaces",
        found=f"up to {limit}" if limit else None,
        ok=limit.isdigit() and int(limit) > 0,
        why="give each sandbox a range of uids of its own under crun",
        remedy="sysctl -w user.max_user_namespaces=10000",
    )


def seccomp(machine: Machine) -> Finding:
    actions = (machine.text("/proc/sys/kernel/seccomp/actions_avail") or "").split()
    return Finding(
        name="seccomp",
        found="filters" if "errno" in actions else None,
        ok="errno" in actions,
        why="keeps system calls that a sandbox has no use for from the kernel",
        remedy="use a kernel with CONFIG_SECCOMP_FILTER",
    )


def loop_devices(machine: Machine) -> Finding:
    there = machine.exists("/dev/loop-control")
    return Finding(
        name="loop devices",
        found="/dev/loop-control" if there else None,
        ok=there,
        why="mount images, and give each sandbox under crun a disk of a fixed size",
        remedy="modprobe loop",
    )


def veth(machine: Machine) -> Finding:
    made = machine.output("unshare", "--net", "ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1")
    bridged = machine.output("unshare", "--net", "ip", "link", "add", "probe0", "type", "bridge")
    return Finding(
        name="network devices",
        found="namespaces, veth, bridge" if made is not None and bridged is not None else None,
        ok=made is not None and bridged is not None,
        why="each sandbox has a network of its own, joined to this machine by one cable",
        remedy="run as root, on a kernel with net namespaces, veth and bridge (modprobe veth bridge)",
    )


def nftables(machine: Machine) -> Finding:
    # --check asks the kernel and changes nothing.
    usable = machine.output("nft", "--check", "add", "table", "inet", "warren_doctor") is not None
    return Finding(
        name="nftables",
        found=(machine.output("nft", "--version") or "").strip() or None,
        ok=usable,
        why="rules that keep sandboxes from this machine, from private networks and from each other",
        remedy="apt-get install nftables; run as root, on a kernel with nf_tables",
    )


def forwarding(machine: Machine) -> Finding:
    value = (machine.text("/proc/sys/net/ipv4/ip_forward") or "").strip()
    return Finding(
        name="ip_forward",
        found={"1": "on", "0": "off: `warren serve` turns it on"}.get(value),
        ok=value in {"0", "1"},
        why="lets sandboxes reach the Internet through this machine",
        remedy="sysctl -w net.ipv4.ip_forward=1",
        weight=Weight.ADVISED,
    )
