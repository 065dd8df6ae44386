"""Engines of a test's own, and sandboxes whose first process is not guestd but a shell (`probes serve`)."""

import asyncio
import http.client
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import addresses, leaks
from warren.contracts.engine import GUEST_PORT, Placement, SandboxSpec
from warren.engine.oci.engine import OciEngine
from warren.model.policy import EgressPolicy
from warren.model.sandbox import Resources
from warren.model.template import TemplateImage
from warren.settings import Settings, load

BOOT_S = 20.0
ANSWER_S = 60.0
SMALL = Resources(cpu_count=1, memory_mb=256, disk_mb=128, pids=200)

OUTER = ("WARREN_CACHE_DIR", "WARREN_GUESTD_PATH", "WARREN_RUNSC_PATH")

CONNECT = """
python3 - <<'END'
import concurrent.futures, socket
def reach(target):
    try:
        with socket.create_connection(target, 1.0): return "open"
    except OSError as error: return "closed"
targets = {targets!r}
with concurrent.futures.ThreadPoolExecutor(64) as pool:
    for target, verdict in zip(targets, pool.map(reach, targets)): print(*target, verdict)
END
"""


@dataclass
class Lab:
    engine: OciEngine
    bridge: str
    gateway: str
    spare_slot_address: str
    one: Placement
    two: Placement

    def run(self, script: str, where: Placement | None = None) -> str:
        return shell((where or self.one).address, script)

    def reachable(self, *targets: tuple[str, int], where: Placement | None = None) -> set[tuple[str, int]]:
        """Which of these a sandbox can open a TCP connection to."""
        lines = self.run(CONNECT.format(targets=list(targets)), where).splitlines()
        verdicts = {(host, int(port)): verdict for host, port, verdict in (line.split() for line in lines)}
        assert verdicts.keys() == set(targets)
        return {target for target, verdict in verdicts.items() if verdict == "open"}

    def record(self, placement: Placement) -> Path:
        return Path("/run/warren", self.bridge, "sandboxes", placement.id, "placement.json")


def shell(address: str, script: str, path: str = "/") -> str:
    connection = http.client.HTTPConnection(address, GUEST_PORT, timeout=ANSWER_S)
    connection.request("POST", path, script.encode())
    answer = connection.getresponse().read().decode(errors="replace")
    connection.close()
    return answer


def outer_settings() -> Settings:
    return load({name: value for name, value in os.environ.items() if name in OUTER})


def base_image() -> Path:
    images = sorted(outer_settings().cache_dir.glob("templates/base-*/rootfs.erofs"))
    if not images:
        pytest.skip("no base template in the cache; run `make setup`")
    return images[-1]


def settings_of_ones_own(runtime: str, folder: Path, guest: Path, max_slots: int = 8) -> Settings:
    base = outer_settings()
    tag = secrets.token_hex(2)
    return Settings(
        state_dir=folder,
        cache_dir=base.cache_dir,
        runsc_path=base.runsc_path,
        guestd_path=str(guest),
        bridge=f"ws{tag}",
        network=addresses.block(27),
        runtime=runtime,
        pool_slots=min(3, max_slots),
        max_slots=max_slots,
    )


@asynccontextmanager
async def engine_of_ones_own(settings: Settings) -> AsyncIterator[OciEngine]:
    """Gone afterwards, with all its sandboxes, and without a trace."""
    before = leaks.snapshot(settings.bridge, settings.state_dir)
    engine = OciEngine(settings)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.open()  # in case the test closed it
        for placement in await engine.list():
            await engine.destroy(placement.id)
        await engine.close()
    assert leaks.difference(before, leaks.snapshot(settings.bridge, settings.state_dir)) == {}


async def start(
    engine: OciEngine,
    runtime: str,
    *,
    egress: EgressPolicy | None = None,
    hostname: str = "box",
    size: Resources = SMALL,
) -> Placement:
    """A sandbox whose shell answers."""
    image = TemplateImage("sha256:unchecked", str(base_image()))
    name = f"i{secrets.token_hex(10)}"
    spec = SandboxSpec(name, runtime, image, hostname, size, egress or EgressPolicy())
    placement = await engine.create(spec)
    await answers(placement.address)
    return placement


@asynccontextmanager
async def lab(runtime: str, folder: Path, guest: Path) -> AsyncIterator[Lab]:
    settings = settings_of_ones_own(runtime, folder, guest)
    async with engine_of_ones_own(settings) as engine:
        placements = [await start(engine, runtime) for _ in range(2)]
        yield Lab(engine, settings.bridge, str(settings.network[1]), str(settings.network[20]), *placements)


async def answers(address: str) -> None:
    async with asyncio.timeout(BOOT_S):
        while True:
            try:
                assert await asyncio.to_thread(shell, address, "echo up") == "up\n"
            except OSError:
                await asyncio.sleep(0.02)
            else:
                return
