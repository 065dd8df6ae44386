"""Each control once without it: the probe has to turn red. A probe that stays green would prove nothing."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.internet import Internet
from tests.security.lab import CONNECT, engine_of_ones_own, settings_of_ones_own, shell, start
from tests.security.test_network_closed import listening
from warren.engine.oci import crun, firewall, runsc
from warren.engine.oci.engine import OciEngine

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


def _weaken(monkeypatch: pytest.MonkeyPatch, runtime: str, weaken: Callable[[Bundle], None]) -> None:
    module, name = (crun, "crun_bundle") if runtime == "crun" else (runsc, "runsc_bundle")
    made = getattr(module, name)

    def weakened(*arguments: object, **options: object) -> Bundle:
        bundle = json.loads(json.dumps(made(*arguments, **options)))
        weaken(bundle)
        return bundle

    monkeypatch.setattr(module, name, weakened)


async def _reaches(without: str, target: tuple[str, int], folder: Path, guest: Path, patch: pytest.MonkeyPatch) -> bool:
    """Whether a sandbox opens a connection when these rules are not there."""
    assert firewall.RULES.count(without) == 1
    patch.setattr(firewall, "RULES", firewall.RULES.replace(without, ""))
    async with engine_of_ones_own(settings_of_ones_own("crun", folder, guest)) as engine:
        box = await start(engine, "crun")
        gateway = str(engine._plan.gateway)
        host, port = target
        said = await asyncio.to_thread(shell, box.address, CONNECT.format(targets=[(host or gateway, port)]))
        return said.split()[-1] == "open"


@pytest.mark.switched_off("B3")
async def test_without_the_closed_blocks_a_trap_is_reached(
    internet: Internet, tmp_path: Path, probes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = "        ip daddr @closed goto refuse\n"
    assert await _reaches(rule, (internet.traps[0], 80), tmp_path, probes, monkeypatch)
    assert [visit for visit in internet.visits() if visit[0] == internet.traps[0]]


@pytest.mark.switched_off("B1")
async def test_without_the_input_rule_the_host_is_reached(
    tmp_path: Path, probes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = "\n        ct state established,related accept\n        goto refuse\n    }}\n    chain through_host"
    rest = "\n    }}\n    chain through_host"
    monkeypatch.setattr(firewall, "RULES", firewall.RULES.replace(rule, rest))
    rule = '        iifname != "{bridge}" accept'
    with listening("0.0.0.0") as ((_, port), callers):
        assert await _reaches(rule, ("", port), tmp_path, probes, monkeypatch)
    assert callers
