"""What a sandbox must not reach, with traps that would catch a leak. Nothing is sent to another machine."""

import asyncio
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Network

import pytest

from tests.e2e.internet import Internet
from tests.security.lab import Lab
from tests.security.wire import forge
from warren.contracts.engine import GUEST_PORT
from warren.model.policy import ALL_TRAFFIC, EgressPolicy

pytestmark = [pytest.mark.root, pytest.mark.alone, pytest.mark.anyio, pytest.mark.timeout(180)]


@contextmanager
def listening(address: str, port: int = 0) -> Iterator[tuple[tuple[str, int], list[str]]]:
    """A TCP server of the host and who called it."""
    callers: list[str] = []
    with socket.create_server((address, port), backlog=64) as server:

        def serve() -> None:
            while True:
                try:
                    peer, (caller, _) = server.accept()
                except OSError:
                    return
                callers.append(caller)
                peer.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname(), callers
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def host_addresses() -> list[str]:
    shown = subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, text=True, check=True, timeout=10)
    return [info["local"] for link in json.loads(shown.stdout) for info in link["addr_info"]]


async def test_the_internet_is_open(box: Lab, internet: Internet) -> None:
    servers = {(address, 80) for address in internet.servers}
    assert await asyncio.to_thread(box.reachable, *servers) == servers
    assert {caller for reached, caller in internet.visits() if reached in internet.servers} == {internet.near}


@pytest.mark.threat("B3")
async def test_private_link_local_and_metadata_addresses_are_closed(box: Lab, internet: Internet) -> None:
    assert internet.traps, "the traps are what this test is about"
    before = internet.visits()
    assert await asyncio.to_thread(box.reachable, *((trap, 80) for trap in internet.traps)) == set()
    assert internet.visits() == before


@pytest.mark.threat("B3")
async def test_no_rule_of_a_user_opens_them(box: Lab, internet: Internet) -> None:
    before = internet.visits()
    everything = EgressPolicy(allow=(ALL_TRAFFIC, *(IPv4Network(trap) for trap in internet.traps)))
    await box.engine.set_egress(box.one.id, everything)
    try:
        assert await asyncio.to_thread(box.reachable, *((trap, 80) for trap in internet.traps)) == set()
    finally:
        await box.engine.set_egress(box.one.id, EgressPolicy())
    assert internet.visits() == before


@pytest.mark.threat("B1")
async def test_every_address_of_the_host_is_closed(box: Lab, internet: Internet) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(listening(address)) for address in host_addresses()]
        assert any(address == box.gateway for (address, _), _ in servers)
        found = await asyncio.to_thread(box.reachable, *(target for target, _ in servers))
        assert found == set()
        assert [callers for _, callers in servers if callers] == []


@pytest.mark.threat("B2")
async def test_the_other_sandbox_is_closed(box: Lab) -> None:
    assert await asyncio.to_thread(box.reachable, (box.two.address, GUEST_PORT)) == set()
    assert await asyncio.to_thread(box.reachable, (box.one.address, GUEST_PORT), where=box.two) == set()


@pytest.mark.threat("B5")
async def test_denied_blocks_are_closed_and_allowed_ones_within_them_open(box: Lab, internet: Internet) -> None:
    first, second = internet.servers[:2]
    both = ((first, 80), (second, 80))
    await box.engine.set_egress(box.one.id, EgressPolicy(allow=(IPv4Network(first),), deny=(ALL_TRAFFIC,)))
    try:
        assert await asyncio.to_thread(box.reachable, *both) == {(first, 80)}
        assert await asyncio.to_thread(box.reachable, *both, where=box.two) == set(both)
        await box.engine.set_egress(box.one.id, EgressPolicy(deny=(IPv4Network(second),)))
        assert await asyncio.to_thread(box.reachable, *both) == {(first, 80)}
        await box.engine.set_egress(box.one.id, EgressPolicy(deny=(ALL_TRAFFIC,)))
        assert await asyncio.to_thread(box.reachable, *both) == set()
        assert await asyncio.to_thread(box.run, "echo inbound") == "inbound\n"
    finally:
        await box.engine.set_egress(box.one.id, EgressPolicy())
    assert await asyncio.to_thread(box.reachable, *both) == set(both)


@pytest.mark.threat("B2")
async def test_there_is_no_ipv6(box: Lab) -> None:
    assert "inet6" not in await asyncio.to_thread(box.run, "ip -6 addr show dev eth0")


FORGED = 33
"""Frames at the least."""


@pytest.mark.threat("B2", "B4")
async def test_forged_frames_do_not_leave_the_slot(box: Lab, internet: Internet) -> None:
    """On the wire itself, with what root inside lacks: the right to send raw frames."""
    before, counted = neighbours(box.bridge), await box.engine.denials()
    assert await asyncio.to_thread(forge, box, internet) == ([], [])
    assert neighbours(box.bridge) == before
    now = await box.engine.denials()
    assert now[box.one.id] - counted.get(box.one.id, 0) >= FORGED, "each of them is counted, as its sender's"
    assert now.get(box.two.id) == counted.get(box.two.id)


def neighbours(bridge: str) -> str:
    shown = subprocess.run(["ip", "neigh", "show", "dev", bridge], capture_output=True, text=True, timeout=10)
    return shown.stdout


@pytest.mark.threat("B4")
async def test_root_inside_cannot_open_raw_sockets(box: Lab) -> None:
    tried = """python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'
    python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'"""
    assert (await asyncio.to_thread(box.run, tried)).count("Error") == 2
