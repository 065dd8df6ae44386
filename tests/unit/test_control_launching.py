"""A sandbox of a template with services: from its memory where there is any that fits, else they are started."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from warren.contracts.engine import Checkpoint
from warren.contracts.guest import Exit, Fate, GuestCommand, OnLine
from warren.control.launching import Launched, Launcher, Owner
from warren.control.services import Services
from warren.control.templates import TemplateFiles
from warren.control.tokens import Tokens
from warren.engine.fake.engine import FakeEngine
from warren.guest.fake import FakeGuest
from warren.guest.fake_workshop import FakeWorkshop, Program
from warren.model import limits
from warren.model.errors import EngineFailed, ServicesNotReady, Unavailable
from warren.model.policy import EgressPolicy
from warren.model.pool import Kind
from warren.model.sandbox import Resources
from warren.model.snapshot import SnapshotKind
from warren.model.template import Template

pytestmark = pytest.mark.anyio
NAME = "c" + "0" * 20
TOKENS = Tokens(b"seed")
TEMPLATE = Template(
    "t1", None, ("web",), "b", "sha256:x", Resources(), datetime(2026, 1, 1, tzinfo=UTC),
    start_command="serve", ready_command="ready", checkpoint_id=NAME, envs={"A": "1"},
)  # fmt: skip


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Yard:
    def __init__(self, folder: Path, engine: FakeEngine) -> None:
        self.engine, self.guest, self.workshop = engine, FakeGuest(), FakeWorkshop()
        self.launcher = Launcher(
            engine=engine,
            guest=self.guest,
            tokens=TOKENS,
            images=TemplateFiles(folder),
            services=Services(self.workshop),
        )

    async def launched(
        self, template: Template, runtime: str = "runsc", resources: Resources | None = None
    ) -> Launched:
        sandbox_id = f"i{len(self.engine.machine.sandboxes):020d}"
        kind = Kind(template.id, template.digest, runtime, resources or template.resources)
        started = await self.launcher.start_new(sandbox_id, template, kind, EgressPolicy())
        await self.launcher.greet(started, template, Owner(secured=True), 1.0)
        return started


@pytest.fixture
async def yard(tmp_path: Path, anyio_backend: str) -> Yard:
    engine = FakeEngine()
    await engine.open()
    engine.machine.checkpoints[NAME] = Checkpoint(NAME, "gone", "runsc", SnapshotKind.MEMORY, 1, engine.machine.build)
    return Yard(tmp_path, engine)


async def test_memory_that_fits_is_restored_and_nothing_is_started(yard: Yard) -> None:
    started = await yard.launched(TEMPLATE)
    (sandbox,) = yard.engine.machine.sandboxes.values()
    assert sandbox.spec.restore is not None
    (identity,) = yard.guest.identities.values()
    assert (identity.is_copy, identity.authority) == (True, TOKENS.control(NAME))
    assert identity.control_token == TOKENS.control(started.placement.id)
    assert yard.workshop.done == []


@pytest.mark.parametrize("why", ["runtime", "size", "gone", "unusable"])
async def test_without_memory_that_fits_the_services_are_started(yard: Yard, why: str) -> None:
    if why == "gone":
        yard.engine.machine.checkpoints.clear()
    if why == "unusable":
        yard.engine.machine.build = "another"
    runtime = "crun" if why == "runtime" else "runsc"
    await yard.launched(TEMPLATE, runtime, Resources(memory_mb=4096) if why == "size" else None)
    (sandbox,) = yard.engine.machine.sandboxes.values()
    assert sandbox.spec.restore is None
    assert set(yard.workshop.done) == {"run serve", "run ready"}
    assert {command.words[-1]: command.fate for command in yard.workshop.commands} == {
        "serve": Fate.OUTLIVES,
        "ready": Fate.KILLED,
    }
    assert yard.workshop.commands[0].envs == {"A": "1"}


async def test_a_start_command_alone_is_not_waited_for(yard: Yard) -> None:
    await yard.launched(replace(TEMPLATE, checkpoint_id=None, ready_command=None))
    (command,) = yard.workshop.commands
    assert (command.words[-1], command.fate) == ("serve", Fate.LEFT)


async def test_a_template_without_services_starts_none(yard: Yard) -> None:
    await yard.launched(replace(TEMPLATE, checkpoint_id=None, start_command=None, ready_command=None))
    assert yard.workshop.done == []


async def fails(command: GuestCommand, on_line: OnLine) -> Exit:
    del command, on_line
    return Exit(1)


async def is_refused(command: GuestCommand, on_line: OnLine) -> Exit:
    del command, on_line
    return Exit(1, "no such folder")


async def is_unheard(command: GuestCommand, on_line: OnLine) -> Exit:
    del command, on_line
    raise Unavailable("cannot reach the guest")


@pytest.mark.parametrize(
    ("command", "program", "error", "words"),
    [
        ("ready", fails, ServicesNotReady, "'ready' did not succeed within 0.05 s; try again"),
        ("ready", is_unheard, ServicesNotReady, "cannot reach the guest"),
        ("serve", fails, EngineFailed, "exit status 1"),
        ("serve", is_refused, EngineFailed, "no such folder"),
    ],
)
async def test_services_that_do_not_come_up_fail_the_start(
    yard: Yard, command: str, program: Program, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SERVICES_DEADLINE_S", 0.05)
    monkeypatch.setattr(limits, "SERVICES_READY_PAUSE_S", 0.01)
    yard.workshop.programs = {"ready": fails, command: program}
    with pytest.raises(error, match=f"^cannot start the template's services: .*{words}"):
        await yard.launched(replace(TEMPLATE, checkpoint_id=None))


async def test_a_start_command_alone_that_cannot_begin_fails_the_start(yard: Yard) -> None:
    yard.workshop.programs = {"serve": is_refused}
    with pytest.raises(EngineFailed, match="no such folder"):
        await yard.launched(replace(TEMPLATE, checkpoint_id=None, ready_command=None))
