"""The OCI specification of a sandbox: what it may see and do, as a value. Pure; nothing is started here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from warren.contracts.engine import SandboxSpec
from warren.engine.oci.seccomp import profile
from warren.engine.oci.slot import Slot
from warren.engine.oci.uids import UIDS_PER_SLOT
from warren.model import limits

OCI_VERSION = "1.0.2"
GUEST_DIR = "/.warren"
GUEST_COMMAND = f"{GUEST_DIR}/guestd"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
CPU_INFO = "/sys/devices/system/cpu"
CGROUP = "/sys/fs/cgroup"
MIB = 1024 * 1024

CAPABILITIES = (
    "CAP_AUDIT_WRITE",  # sudo and login write to the audit log and fail without
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",  # dpkg unpacks packages whose files carry capabilities
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""All that root inside ever has: what package managers, sudo and servers on low ports need."""

CPU_PERIOD_US = 100_000
"""Microseconds of one scheduling period: the kernel's default."""
CPU_SHARES = 1024
"""Weight of one CPU, so that sandboxes that want more than there is get it in proportion; the kernel's default."""
BACKGROUND_SHARES = 256
"""Weight of a sandbox that nobody waits for. Not the least there is: starved for long, a start would hold the kernel's
locks and the machine's places against those who do wait."""
SENTRY_OOM_SCORE = 500
"""Added to a sentry's score when the machine runs out of memory: it goes before the server."""
SENTRY_PIDS = 8192
"""Threads of gVisor's kernel itself, which reaching the limit would kill; processes inside are bounded by NPROC."""
DEV_BYTES = 64 * 1024
"""Bytes of the tmpfs that holds the device nodes: they need none, so nothing else fits."""
SHM_SHARE = 4
"""Shared memory may fill one quarter of the memory, and not more than SHM_MAX_BYTES."""
SHM_MAX_BYTES = 512 * MIB

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/diskstats",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/ioports",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/partitions",
    "/proc/pressure",  # the host's; and whoever may open it gives its kernel work to do
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys")

DEVICE_NUMBERS: tuple[tuple[int, int | None], ...] = (
    (1, 3),  # null
    (1, 5),  # zero
    (1, 7),  # full
    (1, 8),  # random
    (1, 9),  # urandom
    (5, 0),  # tty
    (5, 2),  # ptmx
    (136, None),  # pts/*
)
"""Character devices, major and minor, None for all minors; crun makes the nodes of its own accord."""

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Paths:
    """Places on the host that a bundle names; all made by the engine, none chosen by a sandbox."""

    root: Path
    guest_dir: Path
    layers: Path
    cgroup: str
    boot_id: Path | None = None
    meminfo: Path | None = None
    user_namespace: Path | None = None
    counters: Sequence[tuple[str, Path]] = ()
    """Of the sandbox's own cgroup, named as below /sys/fs/cgroup; none with v2, where the group itself is shown."""
    volumes: Sequence[Path] = ()
    """Of the specification's volumes, in their order."""


def runsc_bundle(spec: SandboxSpec, slot: Slot, paths: Paths) -> Json:
    """gVisor: no user namespace and no seccomp profile, both are the sentry's own work."""
    resources = _resources(spec, pids=spec.resources.pids + SENTRY_PIDS)
    return _bundle(
        spec,
        paths,
        # gVisor's /dev takes no size, and what fills it is memory; read-only its devices work all the same.
        mounts=[*_mounts(spec, paths, dev="ro"), _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro")],
        linux={
            "namespaces": _namespaces(slot),
            "cgroupsPath": paths.cgroup,
            "resources": resources,
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
        },
        open_files=limits.MAX_OPEN_FILES,
        oom_score=SENTRY_OOM_SCORE,
        annotations={
            "dev.gvisor.spec.rootfs.type": "erofs",
            "dev.gvisor.spec.rootfs.source": spec.image.path,
            "dev.gvisor.spec.rootfs.overlay": f"dir={paths.layers}",
            "dev.gvisor.spec.rootfs.options": f"size={spec.resources.disk_mb}m",
        },
    )


def rehoused(saved: Json, fresh: Json, guest_dir: Path) -> Json:
    """The bundle for memory that was saved: the mounts and the process that it knows, in a new place.

    A kernel that is restored looks for its mounts as they were, whatever this version would give a new sandbox.
    Raises ValueError when volumes are not where they were.
    """
    old, new = cast("dict[str, Any]", saved), cast("dict[str, Any]", fresh)
    sources = {**_binds(new), GUEST_DIR: str(guest_dir)}
    if sources.keys() != _binds(old).keys():
        raise ValueError("its volumes were mounted at " + (", ".join(_binds(old).keys() - {GUEST_DIR}) or "no place"))
    mounts = [{**mount, "source": sources.get(mount["destination"], mount["source"])} for mount in old["mounts"]]
    place = {key: new["linux"][key] for key in ("namespaces", "cgroupsPath", "resources")}
    return {
        **old,
        **{key: new[key] for key in ("hostname", "root", "annotations")},
        "mounts": mounts,
        "linux": {**old["linux"], **place},
    }


def _binds(bundle: dict[str, Any]) -> dict[str, str]:
    """What of the host is shown where."""
    return {mount["destination"]: mount["source"] for mount in bundle["mounts"] if mount["type"] == "bind"}


def guest_of(bundle: Json) -> Path:
    """Where the guestd of a bundle comes from."""
    mounts = cast("list[dict[str, Any]]", bundle["mounts"])
    return next(Path(mount["source"]) for mount in mounts if mount["destination"] == GUEST_DIR)


def crun_bundle(
    spec: SandboxSpec, slot: Slot, paths: Paths, *, uid_base: int, open_files: int, own_cgroup: bool
) -> Json:
    """The host's kernel, so the profile is ours: a user namespace, seccomp, a device list.

    own_cgroup: crun is started inside a finished cgroup (confine.py) and has nothing to make or to limit.
    """
    mapping = [{"containerID": 0, "hostID": uid_base, "size": UIDS_PER_SLOT}]
    return _bundle(
        spec,
        paths,
        mounts=[
            *_mounts(spec, paths, dev=f"size={DEV_BYTES}", terminals=[f"max={limits.MAX_TERMINALS}"]),
            *_truthful_mounts(paths),
        ],
        linux={
            "namespaces": [*_namespaces(slot), {"type": "user", "path": str(paths.user_namespace)}],
            "uidMappings": mapping,
            "gidMappings": mapping,
            **({} if own_cgroup else _cgroup(spec, paths)),
            "maskedPaths": list(MASKED_PATHS),
            # Children again after their parents: crun binds a parent anew and forgets that they were read-only.
            "readonlyPaths": [*READONLY_PATHS, BOOT_ID, "/sys", CPU_INFO, *(place for place, _ in _counters(paths))],
            "seccomp": profile(),
        },
        open_files=open_files,
        annotations={},
    )


def _cgroup(spec: SandboxSpec, paths: Paths) -> Json:
    resources = {**_resources(spec, pids=spec.resources.pids), "devices": _device_rules()}
    return {"cgroupsPath": paths.cgroup, "resources": resources}


def _bundle(
    spec: SandboxSpec,
    paths: Paths,
    *,
    mounts: Sequence[Json],
    linux: Json,
    open_files: int,
    oom_score: int = 0,
    annotations: Mapping[str, str],
) -> Json:
    return {
        "ociVersion": OCI_VERSION,
        "hostname": spec.hostname,
        "root": {"path": str(paths.root), "readonly": False},
        "process": {**_process(spec, open_files), "oomScoreAdj": oom_score},
        "mounts": mounts,
        "linux": linux,
        "annotations": dict(annotations),
    }


def _process(spec: SandboxSpec, open_files: int) -> Json:
    capabilities = list(CAPABILITIES)
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": [GUEST_COMMAND],
        "env": [f"PATH={PATH}", "HOME=/root", "LANG=C.UTF-8"],
        "cwd": "/",
        # Neither ambient nor inheritable: a user's program gains nothing by being started.
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        "rlimits": [
            {"type": "RLIMIT_NPROC", "soft": spec.resources.pids, "hard": spec.resources.pids},
            {"type": "RLIMIT_NOFILE", "soft": open_files, "hard": open_files},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ],
        "noNewPrivileges": False,  # sudo
    }


def _namespaces(slot: Slot) -> list[Json]:
    own = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup")]
    return [*own, {"type": "network", "path": str(slot.netns)}]


def _resources(spec: SandboxSpec, pids: int) -> Json:
    memory = spec.resources.memory_mb * MIB
    return {
        "memory": {"limit": memory, "swap": memory},
        "cpu": {
            "quota": spec.resources.cpu_count * CPU_PERIOD_US,
            "period": CPU_PERIOD_US,
            "shares": cpu_shares(spec.resources.cpu_count, in_background=spec.in_background),
        },
        "pids": {"limit": pids},
    }


def cpu_shares(cpu_count: int, *, in_background: bool = False) -> int:
    return BACKGROUND_SHARES if in_background else cpu_count * CPU_SHARES


def _mounts(spec: SandboxSpec, paths: Paths, *, dev: str, terminals: Sequence[str] = ()) -> list[Json]:
    shm = min(spec.resources.memory_mb * MIB // SHM_SHARE, SHM_MAX_BYTES)
    pts = ("nosuid", "noexec", "newinstance", "ptmxmode=666", "mode=620", "gid=5", *terminals)
    return [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "noexec", "strictatime", "mode=755", dev),
        _mount("/dev/pts", "devpts", "devpts", *pts),
        _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", f"size={shm}"),  # noqa: S108
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount(GUEST_DIR, "bind", str(paths.guest_dir), "rbind", "ro", "nosuid", "nodev"),
        *(
            _mount(volume.path, "bind", str(source), "bind", "ro" if volume.read_only else "rw", "nosuid", "nodev")
            for volume, source in zip(spec.volumes, paths.volumes, strict=True)
        ),
    ]


def _truthful_mounts(paths: Paths) -> list[Json]:
    """What the host's kernel would otherwise tell of the host instead of the sandbox."""
    mounts = [
        # Not sysfs: it would show the host's devices. Language runtimes look for the processors, so those are there.
        _mount("/sys", "tmpfs", "tmpfs", "nosuid", "noexec", "nodev", "mode=755", f"size={DEV_BYTES}"),
        _mount(CPU_INFO, "bind", CPU_INFO, "rbind", "ro", "nosuid", "noexec", "nodev"),
    ]
    if not paths.counters:
        mounts.append(_mount(CGROUP, "cgroup", "cgroup", "nosuid", "noexec", "nodev", "ro"))
    for place, source in ((BOOT_ID, paths.boot_id), ("/proc/meminfo", paths.meminfo), *_counters(paths)):
        if source is not None:
            mounts.append(_mount(place, "bind", str(source), "bind", "ro", "nosuid", "noexec", "nodev"))
    return mounts


def _counters(paths: Paths) -> list[tuple[str, Path | None]]:
    return [(f"{CGROUP}/{name}", path) for name, path in paths.counters] or [(CGROUP, None)]


def _mount(destination: str, kind: str, source: str, *options: str) -> Json:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _device_rules() -> list[Json]:
    """The cgroup's list, beside the nodes themselves: everything else is refused, also to who makes a node."""
    allowed = [
        {"allow": True, "type": "c", "major": major, "access": "rw", **({} if minor is None else {"minor": minor})}
        for major, minor in DEVICE_NUMBERS
    ]
    return [{"allow": False, "access": "rwm"}, *allowed]
