"""Tables of the host's kernel that all of a machine share: one sandbox fills none of them; without its limit it would.

Memory of sockets is among them: with cgroup v1 it is no part of a group's memory unless somebody says so.
"""

import asyncio
import json
from pathlib import Path

import pytest

from tests.e2e.internet import Internet
from tests.security.lab import engine_of_ones_own, settings_of_ones_own, start
from tests.security.lab import shell as ask
from tests.security.test_slots import connections
from tests.security.wire import in_netns
from warren.contracts.engine import Placement
from warren.engine.oci import confine, firewall, network
from warren.engine.oci.bundle import SENTRY_PIDS
from warren.engine.oci.engine import OciEngine
from warren.engine.oci.firewall import connections_each
from warren.model import limits
from warren.model.sandbox import Resources

pytestmark = [pytest.mark.root, pytest.mark.alone, pytest.mark.anyio, pytest.mark.timeout(240)]

FEW = 64
"""Connections that a sandbox may have here, so that a test has not to make thousands."""
MORE = 600
SLACK = 40
"""What a slow machine lets through meanwhile: two a second."""
SENDS = """
python3 - <<'END'
import socket
wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in range(2000, 2000 + {count}):
    try: wire.sendto(b"x", ("{server}", port))
    except OSError: pass
END
"""
CALLS = """
python3 - <<'END'
import concurrent.futures, socket
def call(_):
    try: socket.create_connection(("{server}", 80), 0.1).close()
    except OSError: pass
with concurrent.futures.ThreadPoolExecutor(16) as pool: list(pool.map(call, range({count})))
END
"""
GREETS = 'python3 -c \'import socket; socket.create_connection(("{server}", 80), 5); print("open")\''
LOOKS_ROUND = """
python3 - <<'END'
import ipaddress, socket
wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for address in ipaddress.ip_network("{network}").hosts():
    try: wire.sendto(b"x", (str(address), 9))
    except OSError: pass
END
"""
FILLS_SOCKETS = """
nohup python3 - > /tmp/filled 2>&1 <<'END' &
import socket, time
listener, held = socket.create_server(("127.0.0.1", 0), backlog=4096), []
try:
    for _ in range(200):
        ours = socket.create_connection(listener.getsockname()); held += [ours, listener.accept()[0]]
        ours.setblocking(False)
        try:
            while True: ours.send(bytes(1 << 18))
        except OSError: pass
except OSError: pass
print("filled", flush=True)
time.sleep(600)
END
for _ in $(seq 600); do grep -q filled /tmp/filled && break; sleep 0.1; done; cat /tmp/filled
"""
SIZE = Resources(cpu_count=1, memory_mb=256, disk_mb=128, pids=200)
IN_SOCKETS = (SIZE.memory_mb << 20) // confine.SOCKET_SHARE
FORCED = 1.5
"""The kernel lets each socket have a little whatever the limit says."""
PAGE = 4096


async def shell(box: Placement, script: str, **values: object) -> str:
    return await asyncio.to_thread(ask, box.address, script.format(**values))


async def _remembered(runtime: str, server: str, probes: Path, folder: Path, script: str) -> int:
    """Connections of a sandbox in the host's table after this script, which another one has to survive."""
    async with engine_of_ones_own(settings_of_ones_own(runtime, folder, probes)) as engine:
        greedy, other = [await start(engine, runtime) for _ in range(2)]
        await shell(greedy, script, server=server, count=MORE)
        found = len(connections(greedy.address))
        assert await shell(other, GREETS, server=server) == "open\n"
        if found < MORE // 2:
            assert (await engine.denials())[greedy.id] > 0, "what is refused is counted"
        return found


@pytest.mark.threat("C5")
async def test_connections_of_one_sandbox_are_a_small_part_of_the_table(
    runtime: str, internet: Internet, probes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert connections_each() * limits.CONNECTIONS_SHARE <= int(firewall.TABLE_SIZE.read_text())
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", FEW)
    assert FEW // 2 < await _remembered(runtime, internet.servers[0], probes, tmp_path, SENDS) <= FEW


@pytest.mark.threat("C5")
async def test_those_that_were_closed_again_are_bounded_too(
    runtime: str, internet: Internet, probes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", FEW)
    found = await _remembered(runtime, internet.servers[0], probes, tmp_path, CALLS)
    assert FEW < found <= FEW * (1 + limits.CONNECTIONS_BURST) + SLACK


@pytest.mark.switched_off("C5")
@pytest.mark.parametrize(
    ("rules", "script"), [(("@connections",), SENDS), (("@newcomers",), CALLS)], ids=["no count", "no rate"]
)
async def test_without_its_limit_a_sandbox_has_more_connections(
    runtime: str,
    internet: Internet,
    probes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rules: tuple[str, ...],
    script: str,
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", FEW)
    monkeypatch.setattr(limits, "CONNECTIONS_BURST", MORE if rules == ("@connections",) else limits.CONNECTIONS_BURST)
    lines = firewall.RULES.splitlines(keepends=True)
    kept = [line for line in lines if not any(f"add {rule}" in line for rule in rules)]
    assert len(kept) == len(lines) - 1
    monkeypatch.setattr(firewall, "RULES", "".join(kept))
    assert await _remembered(runtime, internet.servers[0], probes, tmp_path, script) > MORE // 2


async def _neighbours(runtime: str, probes: Path, folder: Path) -> set[str]:
    """Whom the kernel has in its table for a sandbox that wrote to every address of its network."""
    settings = settings_of_ones_own(runtime, folder, probes)
    async with engine_of_ones_own(settings) as engine:
        box = await start(engine, runtime)
        await shell(box, LOOKS_ROUND, network=settings.network)
        slot = json.loads((engine._places.sandboxes / box.id / "placement.json").read_text())["slot"]
        shown = in_netns(settings.bridge, slot, "ip", "-4", "neigh", "show").stdout
        return {line.split()[0] for line in shown.splitlines()} - {str(settings.network[1])}


@pytest.mark.threat("C8")
async def test_a_sandbox_looks_for_no_neighbours(runtime: str, probes: Path, tmp_path: Path) -> None:
    assert await _neighbours(runtime, probes, tmp_path) == set()


@pytest.mark.switched_off("C8", runtime="crun")
async def test_without_its_routes_it_asks_for_all_of_them(
    probes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_look_for_no_neighbours", lambda *_: None)
    assert len(await _neighbours("crun", probes, tmp_path)) > 20


@pytest.mark.threat("C8")
async def test_the_machine_has_more_files_and_pids_than_sandboxes_take(
    runtime: str, probes: Path, tmp_path: Path
) -> None:
    """Root of the host is not counted, so that the least that others may have cannot be tried without harm to them."""
    async with engine_of_ones_own(settings_of_ones_own(runtime, tmp_path, probes)):
        assert int(Path("/proc/sys/fs/file-max").read_text()) >= limits.DEFAULT_PIDS * limits.MAX_OPEN_FILES
        assert int(Path("/proc/sys/kernel/pid_max").read_text()) >= 100 * (limits.DEFAULT_PIDS + SENTRY_PIDS)


def _memory_of_sockets() -> int:
    """Bytes in all TCP sockets of the machine."""
    words = next(
        line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:")
    ).split()
    return int(words[words.index("mem") + 1]) * PAGE


async def _grown(engine: OciEngine, runtime: str) -> int:
    box = await start(engine, runtime, size=SIZE)
    before = _memory_of_sockets()
    assert "filled" in await shell(box, FILLS_SOCKETS)
    grown = _memory_of_sockets() - before
    print(f"sockets of a sandbox of {SIZE.memory_mb} MiB under {runtime} hold {grown >> 20} MiB")
    assert await shell(box, "echo fine") == "fine\n"
    return grown


@pytest.mark.threat("C1")
async def test_memory_of_sockets_is_bounded(runtime: str, probes: Path, tmp_path: Path) -> None:
    async with engine_of_ones_own(settings_of_ones_own(runtime, tmp_path, probes)) as engine:
        assert await _grown(engine, runtime) <= IN_SOCKETS * FORCED


@pytest.mark.switched_off("C1", runtime="crun")
async def test_without_the_bound_sockets_hold_more_than_the_sandbox_has(
    probes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = confine.settings
    monkeypatch.setattr(
        confine, "settings", lambda size, **how: [one for one in settings(size, **how) if "tcp" not in one.file]
    )
    async with engine_of_ones_own(settings_of_ones_own("crun", tmp_path, probes)) as engine:
        if engine._cgroups.is_v2:
            pytest.skip("a part of the group's memory there")
        assert await _grown(engine, "crun") > IN_SOCKETS * FORCED
