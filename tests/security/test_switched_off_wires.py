"""Each control of the network once without it: the probe has to turn red."""

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.e2e.internet import Internet
from tests.security.lab import CONNECT, engine_of_ones_own, lab, settings_of_ones_own, shell, start
from tests.security.test_network_closed import listening
from tests.security.test_slots import second_owner
from tests.security.wire import forge
from warren.contracts.engine import GUEST_PORT
from warren.engine.oci import firewall, network, pool
from warren.engine.oci.netlink import Routes
from warren.engine.oci.slot import Slot, mac_of

pytestmark = [pytest.mark.root, pytest.mark.alone, pytest.mark.anyio, pytest.mark.timeout(240)]

NUD_NOARP = 0x40
OWN_FRAMES_ONLY = """        iifname != "{bridge}.*" accept
"""
NEVER_BETWEEN_PORTS = """        iifname "{bridge}.*" goto refuse
        oifname "{bridge}.*" drop
"""
NEVER_THROUGH_THE_HOST = """        iifname "{bridge}" goto from_sandbox
        oifname "{bridge}" goto to_sandbox
"""


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


def _without_rules(patch: pytest.MonkeyPatch) -> None:
    """The bridge takes every frame and carries it wherever it is told to."""
    rules = firewall.RULES
    for there, instead in ((OWN_FRAMES_ONLY, "accept\n"), (NEVER_BETWEEN_PORTS, ""), (NEVER_THROUGH_THE_HOST, "")):
        assert rules.count(there) == 1
        rules = rules.replace(there, instead)
    patch.setattr(firewall, "RULES", rules)


def _without_isolation(patch: pytest.MonkeyPatch) -> None:
    """The ports are those of an ordinary bridge."""
    plug_in = network._plug_in

    def ordinary(host: Routes, bridge: int, slot: Slot) -> None:
        plug_in(host, bridge, slot)
        (port,) = host.link_lookup(ifname=slot.host_interface)
        host.brport("set", index=port, isolated=0, learning=1, unicast_flood=1, mcast_flood=1, bcast_flood=1)
        # Ours are permanent, which to a bridge means its own: what a port sends there ends at the host.
        host.fdb("replace", ifindex=port, lladdr=slot.mac, flags=network.NTF_MASTER, state=NUD_NOARP)

    patch.setattr(network, "_plug_in", ordinary)


@pytest.mark.switched_off("B2", "B4")
@pytest.mark.parametrize(
    ("weaken", "reaches_neighbour", "reaches_bridge"),
    [
        ((_without_rules, _without_isolation), True, True),
        ((_without_rules,), False, True),
        ((_without_isolation,), False, False),
    ],
    ids=["neither rules nor isolated ports", "no rules", "no isolated ports"],
)
async def test_rules_and_isolated_ports_each_keep_neighbours_apart(
    weaken: tuple[Callable[[pytest.MonkeyPatch], None], ...],
    reaches_neighbour: bool,
    reaches_bridge: bool,
    runtime: str,
    internet: Internet,
    tmp_path: Path,
    probes: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "_look_for_no_neighbours", lambda *_: None)  # which alone keeps crun's apart
    for each in weaken:
        each(monkeypatch)
    async with lab(runtime, tmp_path, probes) as box:
        neighbour = (box.two.address, GUEST_PORT)
        assert await asyncio.to_thread(box.reachable, neighbour) == ({neighbour} if reaches_neighbour else set())
        on_bridge, at_neighbour = await asyncio.to_thread(forge, box, internet)
        routed = mac_of(IPv4Address(box.gateway)).replace(":", "")  # answers that came to a forged sender
        straight = [frame for frame in at_neighbour if frame[12:24] != routed]
        assert (bool(straight), bool(on_bridge)) == (reaches_neighbour, reaches_bridge)


@pytest.mark.switched_off("B6")
async def test_without_forgetting_the_next_owner_finds_the_last_one_s_connections(
    runtime: str, internet: Internet, tmp_path: Path, probes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "forget_connections", lambda addresses: None)
    connections, _, _ = await second_owner(runtime, internet, probes, tmp_path)
    assert connections
