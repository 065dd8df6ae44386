"""A slot's rules are in force before anything of it can speak, and nothing of a slot outlives its owner."""

import asyncio
import itertools
import json
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.internet import Internet
from tests.security.lab import CONNECT, engine_of_ones_own, settings_of_ones_own, shell, start
from warren.contracts.engine import Placement
from warren.engine.oci.engine import OciEngine
from warren.engine.oci.uids import UIDS_PER_SLOT
from warren.model.policy import ALL_TRAFFIC, EgressPolicy
from warren.settings import Settings

pytestmark = [pytest.mark.root, pytest.mark.anyio, pytest.mark.timeout(240)]

PATIENCE_S = 60.0
CONNTRACK = Path("/proc/net/nf_conntrack")
CLOSED = EgressPolicy(deny=(ALL_TRAFFIC,))
REFUSED = """python3 -c 'import socket; socket.socket(2, 2).sendto(bytes(1), ("10.255.255.1", 9))'"""
"""A packet to an address that no sandbox reaches."""

Traces = dict[str, int]


async def knocks(box: Placement, more_than: int = 0) -> int:
    """How often it has tried to get out, once that is more than it was."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(ConnectionRefusedError):  # it boots, and listens soon
                if (count := int(await asyncio.to_thread(shell, box.address, "", "/knocks"))) > more_than:
                    return count
            await asyncio.sleep(0.05)


def visits(internet: Internet) -> int:
    """All come under the host's address there, whichever sandbox they are from; one test runs at a time."""
    return sum(reached == internet.servers[1] for reached, _ in internet.visits())


@pytest.mark.threat("B5")
async def test_rules_are_there_before_the_first_process_and_while_a_server_is_replaced(
    runtime: str, internet: Internet, probes: Path, tmp_path: Path
) -> None:
    """The sandbox tries to get out from its first moment on, a thousand times a second, closed all the while."""
    before = visits(internet)
    door = f"knock-{internet.servers[1].replace('.', '-')}"
    async with engine_of_ones_own(settings_of_ones_own(runtime, tmp_path, probes)) as engine:
        box = await start(engine, runtime, egress=CLOSED, hostname=door)
        count = await knocks(box)
        for _ in range(3):
            await engine.close()
            await engine.open()
            count = await knocks(box, count)
        assert visits(internet) == before
        await engine.set_egress(box.id, EgressPolicy())
        async with asyncio.timeout(PATIENCE_S):
            while visits(internet) == before:  # it does knock, and at the right door
                await asyncio.sleep(0.05)


def connections(address: str) -> list[str]:
    """What the host's kernel remembers of an address, but for our own talk with the shell."""
    lines = CONNTRACK.read_text().splitlines()
    return [line for line in lines if f"={address} " in line and "dport=49983" not in line]


async def _traces(settings: Settings, engine: OciEngine, box: Placement) -> Traces:
    slot = json.loads(Path("/run/warren", settings.bridge, "sandboxes", box.id, "placement.json").read_text())["slot"]
    port = Path("/sys/class/net", f"{settings.bridge}.{slot}")
    return {
        "interface": int((port / "ifindex").read_text()),
        "received": int((port / "statistics" / "rx_bytes").read_text()),
        "dropped": (await engine.denials()).get(box.id, 0),
    }


async def second_owner(
    runtime: str, internet: Internet, probes: Path, folder: Path
) -> tuple[list[str], Traces, Traces]:
    """One sandbox talks to the Internet and ends: what the next one on its slot finds, and the traces of both."""
    if not CONNTRACK.exists():
        pytest.skip("this kernel does not list its connections")
    settings = settings_of_ones_own(runtime, folder, probes, max_slots=1)
    async with engine_of_ones_own(settings) as engine:
        first = await start(engine, runtime)
        talk = CONNECT.format(targets=[(server, 80) for server in internet.servers])
        assert "closed" not in await asyncio.to_thread(shell, first.address, talk)
        filler = "head -c 3000000 /dev/zero | tr '\\0' x"  # so that its counters are beyond what a young one has
        assert len(await asyncio.to_thread(shell, first.address, filler)) == 3_000_000
        assert connections(first.address)
        await asyncio.to_thread(shell, first.address, REFUSED)
        was = await _traces(settings, engine, first)
        await engine.destroy(first.id)
        second = await start(engine, runtime)
        assert second.address == first.address
        found = connections(second.address), was, await _traces(settings, engine, second)
        assert "closed" not in await asyncio.to_thread(shell, second.address, talk)
        return found


@pytest.mark.threat("B6")
async def test_the_next_owner_of_a_slot_finds_nothing_of_the_last(
    runtime: str, internet: Internet, probes: Path, tmp_path: Path
) -> None:
    connections, was, now = await second_owner(runtime, internet, probes, tmp_path)
    assert connections == []
    assert now["interface"] != was["interface"]
    assert now["received"] < 1_000_000 < was["received"]
    assert now["dropped"] == 0 < was["dropped"]


@pytest.mark.threat("A7", runtime="crun")
async def test_sandboxes_of_two_servers_share_no_uid(probes: Path, tmp_path: Path) -> None:
    async with (
        engine_of_ones_own(settings_of_ones_own("crun", tmp_path / "one", probes)) as one,
        engine_of_ones_own(settings_of_ones_own("crun", tmp_path / "two", probes)) as two,
    ):
        bases = [await _uid_base(engine) for engine in (one, two) for _ in range(2)]
    bases.sort()
    assert all(after - before >= UIDS_PER_SLOT for before, after in itertools.pairwise(bases))


async def _uid_base(engine: OciEngine) -> int:
    box = await start(engine, "crun")
    folder = engine._places.sandboxes / box.id
    pid = json.loads((folder / "placement.json").read_text())["pid"]
    inside, outside, size = map(int, Path(f"/proc/{pid}/uid_map").read_text().split())
    assert (inside, size) == (0, UIDS_PER_SLOT)
    return outside
