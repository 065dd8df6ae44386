"""The attacks again, in sandboxes that did not boot: ones that slept, and copies. What holds there has to hold here."""

import asyncio
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from e2b import Sandbox

from tests.e2e.internet import Internet
from tests.security.inside import USERS, InSandbox, in_sandbox, install, probe
from tests.security.lab import (
    CONNECT,
    SMALL,
    answers,
    base_image,
    engine_of_ones_own,
    settings_of_ones_own,
    shell,
    start,
)
from tests.security.test_slots import CLOSED, CONNTRACK, PATIENCE_S, connections, knocks, visits
from warren.contracts.engine import Restore, SandboxSpec
from warren.model.policy import EgressPolicy
from warren.model.snapshot import SnapshotKind
from warren.model.template import TemplateImage

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

ALL = bool(os.environ.get("WARREN_ATTACK_WHOLE"))
"""`make attack` sets it; otherwise one user under gVisor stands for the rest."""


@pytest.fixture(scope="module", params=["slept", "copied"])
def risen(runtime: str, probes: Path, request: pytest.FixtureRequest) -> Iterator[InSandbox]:
    if runtime == "docker" or (runtime != "runsc" and not ALL):
        pytest.skip("only Warren's sandboxes sleep, and gVisor's stand for all of them")
    with in_sandbox(request.getfixturevalue("server"), runtime) as first:
        install(first, probes)
        if request.param == "slept":
            first.sandbox.pause()
            first.sandbox.connect(timeout=600)
            yield first
            return
        (copy,) = first.sandbox.fork(timeout=600)
        assert isinstance(copy, Sandbox), copy
        try:
            yield replace(first, sandbox=copy)
        finally:
            copy.kill()


@pytest.mark.threat("A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "B4")
@pytest.mark.parametrize("user", USERS if ALL else USERS[:1])
def test_the_walls_stand_after_sleep_and_around_a_copy(risen: InSandbox, runtime: str, user: str) -> None:
    found = probe(risen, runtime, user)
    assert len(found) > 50, "the probes ran"
    assert [f"{each['row']} {each['name']}: {each['detail']}" for each in found if not each["held"]] == []


@pytest.mark.anyio
@pytest.mark.threat("B5")
async def test_rules_are_there_before_what_was_asleep_goes_on(
    runtime: str, internet: Internet, probes: Path, tmp_path: Path
) -> None:
    """It tries to get out a thousand times a second, before, during and after its sleep, closed all the while."""
    before, checkpoint = visits(internet), f"c{secrets.token_hex(10)}"
    door = f"knock-{internet.servers[1].replace('.', '-')}"
    async with engine_of_ones_own(settings_of_ones_own(runtime, tmp_path, probes)) as engine:
        box = await start(engine, runtime, egress=CLOSED, hostname=door)
        count = await knocks(box)
        kind = SnapshotKind.MEMORY if engine.keeps_memory(runtime) else SnapshotKind.FILESYSTEM
        await engine.checkpoint(box.id, checkpoint, kind, hold=True)
        await engine.destroy(box.id)
        image = TemplateImage("sha256:unchecked", str(base_image()))
        spec = SandboxSpec(box.id, runtime, image, door, SMALL, CLOSED, restore=Restore(checkpoint, kind))
        copies = [await engine.create(replace(spec, id=f"i{secrets.token_hex(10)}")) for _ in range(2)]
        risen = await engine.create(spec)
        for each in (risen, *copies):
            await knocks(each, count if kind is SnapshotKind.MEMORY else 0)
        assert visits(internet) == before
        await engine.forget(checkpoint)
        await engine.set_egress(risen.id, EgressPolicy())
        async with asyncio.timeout(PATIENCE_S):
            while visits(internet) == before:  # it does knock, and at the right door
                await asyncio.sleep(0.05)


@pytest.mark.anyio
@pytest.mark.threat("B6")
async def test_no_connection_of_the_old_slot_is_left_for_what_wakes_or_for_copies(
    runtime: str, internet: Internet, probes: Path, tmp_path: Path
) -> None:
    if not CONNTRACK.exists():
        pytest.skip("this kernel does not list its connections")
    checkpoint, talk = f"c{secrets.token_hex(10)}", CONNECT.format(targets=[(each, 80) for each in internet.servers])
    async with engine_of_ones_own(settings_of_ones_own(runtime, tmp_path, probes, max_slots=3)) as engine:
        box = await start(engine, runtime)
        assert "closed" not in await asyncio.to_thread(shell, box.address, talk)
        assert connections(box.address)
        kind = SnapshotKind.MEMORY if engine.keeps_memory(runtime) else SnapshotKind.FILESYSTEM
        await engine.checkpoint(box.id, checkpoint, kind, hold=True)
        await engine.destroy(box.id)
        image = TemplateImage("sha256:unchecked", str(base_image()))
        spec = SandboxSpec(box.id, runtime, image, "box", SMALL, EgressPolicy(), restore=Restore(checkpoint, kind))
        ids = (box.id, *(f"i{secrets.token_hex(10)}" for _ in range(2)))
        risen = [await engine.create(replace(spec, id=each)) for each in ids]
        assert box.address in {each.address for each in risen}, "one of them has the old slot"
        assert [connection for each in risen for connection in connections(each.address)] == []
        for each in risen:
            await answers(each.address)
            assert "closed" not in await asyncio.to_thread(shell, each.address, talk)
        await engine.forget(checkpoint)
