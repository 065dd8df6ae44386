"""Each control once without it: the probe has to turn red. A probe that stays green would prove nothing."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.security.lab import engine_of_ones_own, settings_of_ones_own, shell, start
from tests.security.test_walls import ids_outside
from warren.engine.oci import confine, crun, runsc
from warren.engine.oci.engine import OciEngine
from warren.engine.oci.uids import UIDS_PER_SLOT

pytestmark = [pytest.mark.root, pytest.mark.anyio, pytest.mark.timeout(240)]

Bundle = dict[str, Any]
ALL_CAPABILITIES = [
    "CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_MKNOD", "CAP_SYS_RESOURCE",
    "CAP_DAC_READ_SEARCH", "CAP_SYS_CHROOT", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETFCAP", "CAP_CHOWN",
    "CAP_KILL", "CAP_FOWNER", "CAP_DAC_OVERRIDE", "CAP_NET_BIND_SERVICE",
]  # fmt: skip


def no_seccomp(bundle: Bundle) -> None:
    del bundle["linux"]["seccomp"]


def all_capabilities(bundle: Bundle) -> None:
    for kind in bundle["process"]["capabilities"]:
        bundle["process"]["capabilities"][kind] = ALL_CAPABILITIES


def neither(bundle: Bundle) -> None:
    no_seccomp(bundle)
    all_capabilities(bundle)


def no_masks(bundle: Bundle) -> None:
    bundle["linux"]["maskedPaths"] = []


def processes_of_the_host(bundle: Bundle) -> None:
    mounts = [mount for mount in bundle["mounts"] if not mount["destination"].startswith("/proc")]
    bundle["mounts"] = [
        {"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind", "ro"]},
        *mounts,
    ]
    bundle["linux"] |= {"maskedPaths": [], "readonlyPaths": []}


def no_user_namespace(bundle: Bundle) -> None:
    _without(bundle, "user")
    del bundle["linux"]["uidMappings"], bundle["linux"]["gidMappings"]


def _without(bundle: Bundle, namespace: str) -> None:
    bundle["linux"]["namespaces"] = [each for each in bundle["linux"]["namespaces"] if each["type"] != namespace]


def no_pid_namespace(bundle: Bundle) -> None:
    processes_of_the_host(bundle)  # the kernel mounts no /proc of one's own for a PID namespace of somebody else
    _without(bundle, "pid")


def one_device_more(bundle: Bundle) -> None:
    fuse = {"destination": "/dev/fuse", "type": "bind", "source": "/dev/fuse", "options": ["bind"]}
    bundle["mounts"].append(fuse)


def guestd_for_writing(bundle: Bundle) -> None:
    mount = next(mount for mount in bundle["mounts"] if mount["destination"] == "/.warren")
    mount["options"] = ["rbind"]


def folder_of_the_host(bundle: Bundle) -> None:
    bundle["mounts"].append(
        {"destination": "/run/warren", "type": "bind", "source": "/run/warren", "options": ["rbind"]}
    )


CASES = {
    "crun: no seccomp, calls": ("crun", no_seccomp, "a filter of system calls is in force"),
    "crun: no seccomp, sockets": ("crun", no_seccomp, "unusual socket families are refused"),
    "crun: no seccomp, namespaces": ("crun", no_seccomp, "new namespaces give nothing of the host"),
    "crun: all capabilities": ("crun", all_capabilities, "capabilities are the twelve and none is ambient"),
    "crun: all capabilities, files": ("crun", all_capabilities, "capabilities of a file give no more"),
    "crun: neither, mounts": ("crun", neither, "mount tmpfs"),
    "crun: no masks": ("crun", no_masks, "no file of /proc itself opens for writing"),
    "crun: no masks, reading": ("crun", no_masks, "kernel memory, log, keys and symbols are not read"),
    "crun: the host's PID namespace": ("crun", no_pid_namespace, "processes of the host are not signalled"),
    "crun: the host's /proc": ("crun", processes_of_the_host, "processes of the host are not seen"),
    "crun: a device more": ("crun", one_device_more, "/dev holds only what we put there"),
    "crun: guestd's folder for writing": (
        "crun", guestd_for_writing, "what is mounted is read-only or in memory, but for the root",
    ),
    "crun: a folder of the host": ("crun", folder_of_the_host, "nothing of the host's folders is there"),
    "runsc: all capabilities": ("runsc", all_capabilities, "capabilities are the twelve and none is ambient"),
    "runsc: a folder of the host": ("runsc", folder_of_the_host, "nothing of the host's folders is there"),
}  # fmt: skip


@pytest.fixture(scope="module")
async def engine(
    probes: Path, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> AsyncIterator[OciEngine]:
    settings = settings_of_ones_own("crun", tmp_path_factory.mktemp("weak"), probes)
    async with engine_of_ones_own(settings) as made:
        yield made


@pytest.fixture(scope="module")
def host_process() -> Iterator[int]:
    """A process of the host that may come to harm, under a name that the probes look for."""
    script = "import sys; open('/proc/self/comm', 'w').write('warren'); sys.stdin.read()"
    with subprocess.Popen(["/usr/bin/python3", "-c", script], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


@pytest.mark.switched_off("A1", runtime="crun")
@pytest.mark.switched_off("A2", "A3", "A4", "A5", runtime="crun")
@pytest.mark.switched_off("A7", "A8")
@pytest.mark.parametrize("case", CASES)
async def test_without_the_control_the_probe_turns_red(
    case: str, engine: OciEngine, host_process: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, weaken, red = CASES[case]
    _weaken(monkeypatch, runtime, weaken)
    box = await start(engine, runtime)
    try:
        command = f"timeout 50 /.warren/guestd run {runtime} {host_process} /run/warren"
        said = await asyncio.to_thread(shell, box.address, command)
        findings = {finding["name"]: finding for finding in map(json.loads, said.splitlines())}
        assert findings[red]["held"] is False, "the probe does not see that its control is gone"
    finally:
        await engine.destroy(box.id)


@pytest.mark.switched_off("A7", runtime="crun")
async def test_without_its_user_namespace_root_inside_is_root_outside(
    engine: OciEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _weaken(monkeypatch, "crun", no_user_namespace)
    settings = confine.settings
    # Without it crun makes the nodes of /dev itself, which the device cgroup refuses.
    monkeypatch.setattr(
        confine,
        "settings",
        lambda size, **how: [one for one in settings(size, **how) if one.controller != "devices"],
    )
    box = await start(engine, "crun")
    try:
        uids, (_, outside, size) = ids_outside(engine._places.sandboxes / box.id / "placement.json")
        assert uids == {outside} == {0}
        assert size > UIDS_PER_SLOT
    finally:
        await engine.destroy(box.id)


def _weaken(monkeypatch: pytest.MonkeyPatch, runtime: str, weaken: Callable[[Bundle], None]) -> None:
    module, name = (crun, "crun_bundle") if runtime == "crun" else (runsc, "runsc_bundle")
    made = getattr(module, name)

    def weakened(*arguments: object, **options: object) -> Bundle:
        bundle = json.loads(json.dumps(made(*arguments, **options)))
        weaken(bundle)
        return bundle

    monkeypatch.setattr(module, name, weakened)
