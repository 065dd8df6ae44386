"""Builds over the in-memory engine and guest: which steps run, what is left, how failures are told."""

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, cast

import pytest

from tests.unit.waiting import eventually
from warren.contracts.building import BuildOrder
from warren.contracts.guest import Exit, Fate, GuestCommand, OnLine
from warren.control.build_bench import Bench
from warren.control.build_layers import Layers, Leaving
from warren.control.building import TemplateBuilder
from warren.control.checkpoints import Checkpoints
from warren.control.clock import SystemClock, SystemIds
from warren.control.garbage import Garbage
from warren.control.launching import Launcher
from warren.control.leases import Leases
from warren.control.live import LiveSandboxes
from warren.control.memory import MemoryRelief
from warren.control.sandbox_end import Ending
from warren.control.services import Services
from warren.control.spares import Spares
from warren.control.standstills import Standstills
from warren.control.templates import TemplateFiles, Templates
from warren.control.tokens import Tokens
from warren.control.work import Work
from warren.engine.fake.engine import FakeEngine
from warren.guest.fake import FakeGuest
from warren.guest.fake_workshop import FakeWorkshop
from warren.model import limits
from warren.model.build import Built, Recipe, Step, StepKind
from warren.model.errors import BuildFailed, NoCapacity, TemplateNotFound
from warren.model.pool import Budget
from warren.model.project import Project
from warren.model.sandbox import Resources
from warren.model.template import Template
from warren.store.memory import MemoryStore
from warren.telemetry.meters import Meters

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE = "sha256:" + "b" * 64
RUN, COPY, ENV, WORKDIR, USER = StepKind
HASH = "a" * 64


class Site:
    def __init__(self, folder: Path, engine: FakeEngine) -> None:
        self.engine, self.guest, self.workshop = engine, FakeGuest(), FakeWorkshop()
        self.store, ids, clock, tokens = MemoryStore(), SystemIds(), SystemClock(), Tokens(b"seed")
        (folder / "images").mkdir()
        self.images = TemplateFiles(folder / "images")
        self.layers = Layers(folder / "layers")
        self.leases, self.memories = Leases(), dict[str, str]()
        self.checkpoints = Checkpoints(
            engine=engine,
            store=self.store,
            ids=ids,
            layers=lambda: self.layers.checkpoints() | self.leases.all(),
        )
        self.garbage = Garbage(
            engine=engine, store=self.store, clock=clock, images=self.images, source=None, layers=self.layers,
            checkpoints=self.checkpoints, leases=self.leases, memories=self.memories,
        )  # fmt: skip
        meters = Meters()
        relief = MemoryRelief(
            engine=engine, guest=self.guest, store=self.store, clock=clock, live=LiveSandboxes(tokens, meters),
            ending=cast("Ending", None), standstills=Standstills(), meters=meters,
        )  # fmt: skip
        spares = Spares(
            engine=engine, launcher=cast("Launcher", None), store=self.store, clock=clock, ids=ids,
            work=cast("Work", None), meters=meters, floors=(), budget=Budget(0, 0),
        )  # fmt: skip
        self.uploads = folder / "uploads"
        self.uploads.mkdir()
        self.lines: list[tuple[str | None, str]] = []
        self.builder = TemplateBuilder(
            engine=engine,
            workshop=self.workshop,
            bench=Bench(engine=engine, guest=self.guest, relief=relief, spares=spares, tokens=tokens, ids=ids),
            services=Services(self.workshop),
            clock=clock,
            templates=Templates(server_id="me", store=self.store, clock=clock, files=self.images),
            images=self.images,
            source=None,
            archives=lambda template, name: self.uploads / name,
            layers=self.layers,
            checkpoints=self.checkpoints,
            leases=self.leases,
            garbage=self.garbage,
        )

    @classmethod
    async def opened(cls, folder: Path) -> Self:
        engine = FakeEngine()
        await engine.open()
        site = cls(folder, engine)
        base = Template("base", None, ("base",), str(uuid.uuid4()), BASE, Resources(), NOW)
        await site.store.put_template(base)
        return site

    async def build(self, *steps: Step, project: str = "p1", recipe: Recipe | None = None) -> Built:
        self.lines, self.workshop.done = [], []
        recipe = replace(recipe or Recipe(from_template="base"), steps=steps)
        order = BuildOrder(str(uuid.uuid4()), "mine", Project(project, project, NOW), Resources(), recipe)
        return await self.builder.build(order, lambda level, text, step: self.lines.append((step, text)))

    @property
    def ran(self) -> list[str]:
        return [line for line in self.workshop.done if line != "settle"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def site(tmp_path: Path, anyio_backend: str) -> Site:
    return await Site.opened(tmp_path)


def run(command: str, *user: str, force: bool = False) -> Step:
    return Step(RUN, (command, *user), force=force)


async def test_without_steps_the_base_is_the_image_and_nothing_runs(site: Site) -> None:
    built = await site.build(Step(ENV, ("A", "1")), Step(USER, ("root",)))
    assert (built.digest, built.default_user, built.envs) == (BASE, "root", {"A": "1"})
    assert (site.engine.baked, site.ran) == (0, [])


async def test_the_second_build_runs_nothing(site: Site) -> None:
    first = await site.build(run("one"), run("two"))
    assert site.ran == ["run one", "run two"]
    second = await site.build(run("one"), run("two"))
    assert (second, site.ran, site.engine.baked) == (first, [], 1)
    assert [text for _, text in site.lines[1:]] == ["CACHED [1/2] RUN one", "CACHED [2/2] RUN two"]


async def test_a_change_at_the_end_runs_that_step_alone(site: Site) -> None:
    await site.build(run("one"), Step(WORKDIR, ("/w",)), run("two"))
    await site.build(run("one"), Step(WORKDIR, ("/w",)), run("three"))
    assert site.ran == ["folder /w user", "run three"], "a folder is made again, it has no layer"


async def test_a_changed_first_step_runs_all(site: Site) -> None:
    await site.build(run("one"), run("two"))
    await site.build(run("ONE"), run("two"))
    assert site.ran == ["run ONE", "run two"]


async def test_force_runs_from_there_on(site: Site) -> None:
    await site.build(run("one"), run("two"), run("three"))
    await site.build(run("one"), run("two", force=True), run("three"))
    assert site.ran == ["run two", "run three"]
    await site.build(run("one"), run("two"), run("three"), recipe=Recipe(from_template="base", force=True))
    assert site.ran == ["run one", "run two", "run three"]
    assert set(site.engine.machine.checkpoints) == site.layers.checkpoints(), "those replaced are gone"


@pytest.mark.threat("D1")
async def test_no_project_sees_layers_of_another(site: Site) -> None:
    await site.build(run("one"))
    await site.build(run("one"), project="p2")
    assert site.ran == ["run one"]


async def test_a_retry_begins_where_the_failed_build_ended(site: Site) -> None:
    async def fails(command: GuestCommand, on_line: OnLine) -> Exit:
        del command
        on_line("no such luck")
        return Exit(3)

    site.workshop.programs["two"] = fails
    with pytest.raises(BuildFailed, match=r"failed to run command 'two': exit status 3") as caught:
        await site.build(run("one"), run("two"))
    assert caught.value.step == "2"
    assert ("2", "no such luck") in site.lines
    assert site.engine.machine.sandboxes == {}
    del site.workshop.programs["two"]
    await site.build(run("one"), run("two"))
    assert site.ran == ["run two"]


async def test_an_unknown_user_is_told_as_the_contract_has_it(site: Site) -> None:
    with pytest.raises(BuildFailed) as caught:
        await site.build(run("whoami", "root123"))
    said = "failed to run command 'whoami': command failed: unauthenticated: invalid username: 'root123'"
    assert (caught.value.message, caught.value.step) == (said, "1")


async def test_an_image_without_bash_is_told_the_name_of_the_shell(site: Site) -> None:
    async def missing(command: GuestCommand, on_line: OnLine) -> Exit:
        del command, on_line
        return Exit(127)

    site.workshop.programs |= {"make": missing, "exit 0": missing}
    with pytest.raises(BuildFailed, match="the image has no /bin/bash"):
        await site.build(run("make"))
    del site.workshop.programs["exit 0"]
    with pytest.raises(BuildFailed, match="exit status 127"):
        await site.build(run("make"))


async def test_commands_get_variables_directory_user_and_a_fixed_time(site: Site) -> None:
    await site.build(Step(ENV, ("A", "1")), Step(WORKDIR, ("/w",)), run("make"), run("id", "root"))
    make, who = site.workshop.commands
    assert (make.words, make.user, make.cwd) == (("/bin/bash", "-l", "-c", "make"), "user", "/w")
    assert make.envs == {"A": "1", "SOURCE_DATE_EPOCH": "0"}
    assert who.user == "root"
    assert site.workshop.done.count("settle") == 2, "what a step leaves running does not live on"


async def test_a_copy_without_its_files_says_so(site: Site) -> None:
    copy = Step(COPY, ("src", "dst/", "root", "644"), HASH)
    with pytest.raises(BuildFailed, match="files were not uploaded") as caught:
        await site.build(copy)
    assert caught.value.step == "1"
    (site.uploads / HASH).write_bytes(b"")
    await site.build(copy)
    assert site.ran == ["copy src /home/user/dst/ root 644"]


async def test_every_build_tells_its_sandbox_the_same_of_itself(site: Site) -> None:
    await site.build(run("one"))
    await site.build(run("two"))
    assert {identity.hostname for identity in site.guest.identities.values()} == {"sandbox"}
    assert len({identity.machine_id for identity in site.guest.identities.values()}) == 1


async def test_a_cancelled_build_leaves_no_sandbox_and_keeps_its_layers(site: Site) -> None:
    begun = asyncio.Event()

    async def hangs(command: GuestCommand, on_line: OnLine) -> Exit:
        del command, on_line
        begun.set()
        await asyncio.Event().wait()
        return Exit(0)

    site.workshop.programs["two"] = hangs
    async with asyncio.TaskGroup() as group:
        task = group.create_task(site.build(run("one"), run("two")))
        await begun.wait()
        task.cancel()
    assert site.engine.machine.sandboxes == {}
    assert len(site.layers.checkpoints()) == 1


async def test_a_sandbox_that_dies_fails_the_build_at_once(site: Site) -> None:
    async def hangs(command: GuestCommand, on_line: OnLine) -> Exit:
        del command, on_line
        site.engine.kill_guest(next(iter(site.engine.machine.sandboxes)))
        await asyncio.Event().wait()
        return Exit(0)

    site.workshop.programs["one"] = hangs
    with pytest.raises(BuildFailed, match="sandbox of the build has ended"):
        await site.build(run("one"))
    assert site.engine.machine.sandboxes == {}


async def test_a_layer_that_is_gone_is_made_again(site: Site) -> None:
    await site.build(run("one"), run("two"))
    site.engine.machine.checkpoints.clear()
    await site.build(run("one"), run("two"), run("three"))
    assert site.ran == ["run one", "run two", "run three"]


async def test_an_image_that_is_gone_is_packed_again_without_any_step(site: Site) -> None:
    built = await site.build(run("one"))
    Path(site.images.at(built.digest).path).unlink()
    await site.build(run("one"))
    assert (site.ran, site.engine.baked) == ([], 2)


async def test_what_cannot_be_built_from_is_told(site: Site) -> None:
    with pytest.raises(TemplateNotFound):
        await site.build(recipe=Recipe(from_template="nothing"))
    with pytest.raises(BuildFailed) as caught:
        await site.build(recipe=Recipe())
    assert caught.value.step == "base"
    site.engine.machine.slots = 0
    with pytest.raises(NoCapacity):
        await site.build(run("one"))


async def test_the_sweep_leaves_layers_and_takes_what_nothing_names(site: Site) -> None:
    await site.build(run("one"))
    kept = site.layers.checkpoints()
    await site.checkpoints.sweep()
    assert set(site.engine.machine.checkpoints) == kept
    key = next(iter((Path(site.layers._folder)).glob("*.files"))).name.partition(".")[0]  # pyright: ignore[reportPrivateUsage]
    site.layers.drop(key, Leaving.FILES)
    await site.checkpoints.sweep()
    assert site.engine.machine.checkpoints == {}


async def test_layers_beyond_the_limit_are_forgotten(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LAYERS_KEPT_MB", 2)
    await site.build(run("one"), run("two"), run("three"))
    assert len(site.engine.machine.checkpoints) == len(site.layers.checkpoints()) == 2


async def test_services_are_kept_in_memory_once_ready(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUILD_READY_PAUSE_S", 0.0)
    tries, serving = iter((1, 1, 0)), asyncio.Event()

    async def serve(command: GuestCommand, on_line: OnLine) -> Exit:
        assert command.fate is Fate.OUTLIVES
        on_line("listening")
        serving.set()
        await asyncio.Event().wait()
        return Exit(0)

    async def ready(command: GuestCommand, on_line: OnLine) -> Exit:
        del command, on_line
        return Exit(next(tries))

    site.workshop.programs |= {"serve": serve, "ready": ready}
    recipe = Recipe(from_template="base", start_command="serve", ready_command="ready")
    built = await site.build(run("one"), recipe=recipe)
    assert site.engine.machine.checkpoints[built.checkpoint_id or ""].kind == "memory"
    assert ("finalize", "listening") in site.lines
    again = await site.build(run("one"), recipe=recipe)
    assert (again, site.ran) == (built, [])
    await eventually(lambda: _true(site.engine.machine.sandboxes == {}))


async def _true(value: bool) -> bool:
    return value


async def test_a_start_command_that_fails_fails_the_build(site: Site) -> None:
    async def fails(command: GuestCommand, on_line: OnLine) -> Exit:
        del command, on_line
        return Exit(2)

    site.workshop.programs |= {"serve": fails, "ready": fails}
    recipe = Recipe(from_template="base", start_command="serve", ready_command="ready")
    with pytest.raises(BuildFailed, match="start command 'serve': exit status 2") as caught:
        await site.build(recipe=recipe)
    assert caught.value.step == "finalize"
    assert (site.engine.machine.sandboxes, site.engine.machine.checkpoints) == ({}, {})


async def test_a_template_that_never_gets_ready_fails_the_build(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUILD_READY_DEADLINE_S", 0.05)
    monkeypatch.setattr(limits, "BUILD_READY_PAUSE_S", 0.01)

    async def fails(command: GuestCommand, on_line: OnLine) -> Exit:
        del command, on_line
        return Exit(1)

    site.workshop.programs["ready"] = fails
    recipe = Recipe(from_template="base", ready_command="ready")
    with pytest.raises(BuildFailed, match="ready command 'ready': it did not succeed"):
        await site.build(recipe=recipe)
