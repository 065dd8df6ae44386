"""A place of its own for the tools that touch an image: `python -m warren.images.cell`, one process for each image.

It has namespaces of every kind: no network but the listeners that it hands to the server, no process but its own, no
file of the host but programs and certificates, read-only, and a disk of fixed size that vanishes with it. Its root
user is nobody on the host. It takes one order, a line of JSON, and answers in lines of JSON. When it is killed, the
kernel takes everything back.
"""

import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from warren.images.job import ARCHIVE, PATH, WORK, Job
from warren.model import limits

UID_BASE = 2**31
"""Host id of root inside; above all that the engine gives to sandboxes (`engine.oci.uids`)."""
UIDS = limits.IMAGE_ID_MAX + 1
KEPT_CAPABILITIES = (0, 1, 3, 4, 18, 31)
"""CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_CHROOT, SETFCAP: what unpacking takes, in a user namespace of its own."""
LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")
NAMESPACES = 0x00020000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x02000000
"""NEWNS, NEWNET, NEWIPC, NEWUTS, NEWCGROUP."""
NEWUSER, NEWPID = 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    0x4000,
    1 << 18,
)
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SHOWN = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "etc/ssl", "etc/pki", "etc/ca-certificates")
"""Of the host: programs, their libraries, the certificates that registries are known by."""
NODES = ("null", "zero", "random", "urandom")
PROCESSES = 1024
ROOT_BYTES = "1m"
BYTES_PER_INODE = 4096
"""Of the volume at least, so that a small one is not filled by its own tables."""
SPARE_INODES = 10_000
"""Beyond the image's own: the layout, folders that no layer names."""
ORDER_BYTES = 64 * 1024
VOLUME = "volume.ext4"

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Arguments: the descriptors of the socket for listeners and of the finished image."""
    order = cast("dict[str, Any]", json.loads(sys.stdin.readline(ORDER_BYTES)))
    link, image = int(sys.argv[1]), int(sys.argv[2])
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    Path("/proc/self/oom_score_adj").write_text("1000")  # should the machine run out of memory, this goes first
    _check(_libc.unshare(NEWPID), "unshare")
    mapped_read, mapped_write = os.pipe()
    ready_read, ready_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(mapped_write)
        os._exit(_guarded(lambda: _first_process(order, link, image, ready_write, mapped_read)))
    os.close(ready_write)
    if os.read(ready_read, 1):
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{name}").write_text(f"0 {UID_BASE} {UIDS}\n")
        os.write(mapped_write, b".")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _guarded(work: Callable[[], None]) -> int:
    """What goes wrong before there is a job is the machine's fault, and said as such."""
    try:
        work()
    except (OSError, subprocess.CalledProcessError, KeyError) as error:
        _say({"broken": str(error)})
        return 1
    return 0


def _first_process(order: Mapping[str, Any], link: int, image: int, ready: int, mapped: int) -> None:
    os.umask(0o022)
    _check(_libc.unshare(NAMESPACES), "unshare")
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, env={"PATH": PATH})
    folder = Path(order["folder"])
    _furnish(folder / "root", order)
    _make_volume(folder / VOLUME, folder / "root" / "work", int(order["bytes"]))
    if order["archive"]:
        shutil.copyfile(order["archive"], folder / "root" / "work" / ARCHIVE)
    _pivot(folder / "root")
    proxy = _hand_over_listeners(link, [(str(host), int(port)) for host, port in order["forwards"]])
    _become_nobody(ready, mapped, int(order["memory"]))
    Job(order, image, proxy, _say, lambda: os.read(0, 1) == b"\n").run()


def _furnish(root: Path, order: Mapping[str, Any]) -> None:
    root.mkdir()
    _mount("cell", root, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=755,size={ROOT_BYTES}")
    for name in ("etc/containers", "proc", "dev", "work"):
        (root / name).mkdir(parents=True)
    for name in SHOWN:
        _show(Path("/", name), root / name)
    for name in NODES:
        (root / "dev" / name).touch()
        _mount(f"/dev/{name}", root / "dev" / name, None, MS_BIND)
    _mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    (root / "etc/passwd").write_text("root:x:0:0::/work:/bin/sh\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (root / "etc/containers/registries.conf").write_text(order["registries"])
    cache = Path("/etc/ld.so.cache")
    if cache.exists():
        shutil.copyfile(cache, root / "etc/ld.so.cache")


def _show(source: Path, target: Path) -> None:
    if source.is_symlink():
        target.symlink_to(os.readlink(source))
    elif source.is_dir():
        target.mkdir(parents=True)
        _mount(str(source), target, None, MS_BIND)
        _mount("none", target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _make_volume(file: Path, target: Path, size: int) -> None:
    """A disk of fixed size, whose file has no name any more once it is mounted."""
    with file.open("xb") as fresh:
        fresh.truncate(size)
    inodes = min(limits.IMAGE_FILES + SPARE_INODES, size // BYTES_PER_INODE)
    options = ["-q", "-F", "-m0", "-I256", f"-N{inodes}", "-O^has_journal,^resize_inode"]
    subprocess.run(
        ["mkfs.ext4", *options, "-Elazy_itable_init=1,nodiscard", str(file)], check=True, env={"PATH": PATH},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    loop = "loop,nodev,nosuid,noatime,noinit_itable"
    subprocess.run(["mount", "-t", "ext4", "-o", loop, str(file), str(target)], check=True, env={"PATH": PATH})
    file.unlink()
    os.rmdir(target / "lost+found")
    os.chown(target, UID_BASE, UID_BASE)


def _pivot(root: Path) -> None:
    os.chdir(root)
    _check(_libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def _hand_over_listeners(link: int, forwards: list[tuple[str, int]]) -> str:
    """One for each local registry, at its own address, and one for the proxy. The server answers on all of them."""
    listeners: list[socket.socket] = []
    for host, port in [*forwards, ("127.0.0.1", 0)]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family)
        listener.bind((host.replace("localhost", "127.0.0.1"), port))
        listener.listen(limits.IMAGE_CONNECTIONS)
        listeners.append(listener)
    with socket.socket(fileno=link) as channel:
        socket.send_fds(channel, [b"."], [listener.fileno() for listener in listeners])
    port = listeners[-1].getsockname()[1]
    for listener in listeners:
        listener.close()
    return f"http://127.0.0.1:{port}"


def _become_nobody(ready: int, mapped: int, memory: int) -> None:
    last = int(LAST_CAPABILITY.read_text())
    _check(_libc.unshare(NEWUSER), "unshare")
    os.write(ready, b".")
    if not os.read(mapped, 1):
        raise OSError("the ids of the cell were not mapped")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    for capability in range(last + 1):
        if capability not in KEPT_CAPABILITIES:
            _check(_libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "prctl")
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    size = 2 * limits.IMAGE_BYTES
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    os.chdir(WORK)


def _say(report: Mapping[str, object]) -> None:
    os.write(1, json.dumps(report).encode() + b"\n")


def _mount(source: str, target: Path | str, kind: str | None, flags: int, data: str = "") -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _check(_libc.mount(*texts, ctypes.c_ulong(flags), os.fsencode(data)), f"mount {target}")


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main())
