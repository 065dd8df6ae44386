"""Builds of templates in real sandboxes, without API and store. Needs root."""

import asyncio
import gzip
import io
import os
import tarfile
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import file_digest, sha256
from pathlib import Path

import pytest

from tests.integration.inside import introduce, run
from tests.integration.test_oci_sleep import Machine
from warren.contracts.building import BuildOrder
from warren.control.build_bench import Bench
from warren.control.build_layers import Layers
from warren.control.building import TemplateBuilder
from warren.control.checkpoints import Checkpoints
from warren.control.clock import SystemClock, SystemIds
from warren.control.garbage import Garbage
from warren.control.leases import Leases
from warren.control.memory import MemoryRelief
from warren.control.services import Services
from warren.control.spares import Spares
from warren.control.templates import TemplateFiles, Templates
from warren.control.tokens import Tokens
from warren.engine.oci.engine import OciEngine
from warren.guest.guestd import GuestdClient
from warren.guest.workshop import GuestWorkshop
from warren.model.build import Built, Recipe, Step, StepKind
from warren.model.errors import BuildFailed
from warren.model.pool import Budget
from warren.model.project import Project
from warren.model.sandbox import Resources
from warren.model.template import Template
from warren.store.memory import MemoryStore

pytestmark = [
    pytest.mark.root,
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root"),
]
RUN, COPY, ENV, WORKDIR, USER = StepKind
SIZE = Resources(cpu_count=1, memory_mb=512, disk_mb=512, pids=200)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Site:
    """One server's worth of building, on a real engine."""

    def __init__(self, machine: Machine, engine: OciEngine, guest: GuestdClient) -> None:
        self.machine, self.engine, self.guest = machine, engine, guest
        state = machine.settings.state_dir
        self.store, ids, clock, tokens = MemoryStore(), SystemIds(), SystemClock(), Tokens(b"seed")
        self.images = TemplateFiles(machine.settings.templates_dir)
        self.layers = Layers(state / "layers")
        self.uploads = state / "uploads"
        self.uploads.mkdir()
        self.lines: list[tuple[str | None, str]] = []
        workshop, leases = GuestWorkshop(), Leases()
        checkpoints = Checkpoints(engine=engine, store=self.store, ids=ids, layers=self.layers.checkpoints)
        relief = MemoryRelief(
            engine=engine,
            guest=guest,
            store=self.store,
            clock=clock,
            live=None,
            ending=None,
            standstills=None,
            meters=None,
        )  # pyright: ignore[reportArgumentType]
        spares = Spares(
            engine=engine, launcher=None, store=self.store, clock=clock, ids=ids, work=None, meters=None, floors=(),
            budget=Budget(0, 0),
        )  # fmt: skip  # pyright: ignore[reportArgumentType]
        self.builder = TemplateBuilder(
            engine=engine,
            workshop=workshop,
            bench=Bench(engine=engine, guest=guest, relief=relief, spares=spares, tokens=tokens, ids=ids),
            services=Services(workshop),
            clock=clock,
            templates=Templates(server_id="me", store=self.store, clock=clock, files=self.images),
            images=self.images,
            source=None,
            archives=lambda template, name: self.uploads / template / name,
            layers=self.layers,
            checkpoints=checkpoints,
            leases=leases,
            garbage=Garbage(
                engine=engine, store=self.store, clock=clock, images=self.images, source=None, layers=self.layers,
                checkpoints=checkpoints, leases=leases, memories={},
            ),
        )  # fmt: skip

    async def begin(self) -> None:
        with open(self.machine.image.path, "rb") as file:
            digest = f"sha256:{file_digest(file, 'sha256').hexdigest()}"
        self.images.adopt(Path(self.machine.image.path), digest)
        base = Template("base", None, ("base",), str(uuid.uuid4()), digest, SIZE, datetime.now(UTC))
        await self.store.put_template(base)

    def upload(self, files: dict[str, str | tarfile.TarInfo], template: str = "mine") -> str:
        """The archive that a client makes of a COPY's files; its hash."""
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for name, text in files.items():
                info = text if isinstance(text, tarfile.TarInfo) else tarfile.TarInfo(name)
                body = b"" if isinstance(text, tarfile.TarInfo) else text.encode()
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))
        name = sha256(content.getvalue()).hexdigest()
        (self.uploads / template).mkdir(exist_ok=True)
        (self.uploads / template / name).write_bytes(gzip.compress(content.getvalue()))
        return name

    async def build(self, *steps: Step, project: str = "p1", **recipe: object) -> Built:
        self.lines = []
        order = BuildOrder(
            str(uuid.uuid4()),
            "mine",
            Project(project, project, datetime.now(UTC)),
            SIZE,
            Recipe(from_template="base", steps=steps, **recipe),  # pyright: ignore[reportArgumentType]
        )
        return await self.builder.build(order, lambda level, text, step: self.lines.append((step, text)))

    async def seen(self, built: Built, command: str, runtime: str = "runsc") -> list[str]:
        """What a command of root's says in a sandbox of the finished template."""
        spec = self.machine.spec(runtime, image=self.images.at(built.digest), resources=SIZE)
        placement = await self.engine.create(spec)
        try:
            await introduce(placement.address)
            return (await asyncio.to_thread(run, placement.address, command)).splitlines()
        finally:
            await self.engine.destroy(placement.id)


@pytest.fixture(params=["runsc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def site(tmp_path: Path, runtime: str, anyio_backend: str) -> AsyncIterator[Site]:
    machine = Machine(tmp_path / "state")
    machine.settings = replace(machine.settings, runtime=runtime, max_slots=6)
    machine.settings.templates_dir.mkdir(parents=True)
    guest = GuestdClient()
    async with machine.engine() as engine:
        site = Site(machine, engine, guest)
        await site.begin()
        try:
            yield site
            assert await engine.list() == [], "a build leaves no sandbox"
            assert not list((machine.settings.state_dir / "engine" / "bakes").iterdir())
        finally:
            await guest.close()


def step(kind: StepKind, *args: str, files_hash: str | None = None, force: bool = False) -> Step:
    return Step(kind, args, files_hash, force)


async def test_steps_make_an_image_that_sandboxes_start_from(site: Site, runtime: str) -> None:
    files = site.upload({"app/run.sh": "echo hi", "app/lib/a": "a"})
    built = await site.build(
        step(WORKDIR, "work"),
        step(ENV, "COLOUR", "red", "BOTH", "$HOME/$COLOUR"),
        step(ENV, "BOTH", "${COLOUR}-blue"),
        step(COPY, "app", ".", "", "", files_hash=files),
        step(COPY, "app/run.sh", "/usr/local/bin/start", "root", "755", files_hash=files),
        step(RUN, "echo $BOTH > said; pwd >> said; id -un >> said; ln said again"),
        step(RUN, "rm /etc/motd; chmod 4755 /usr/bin/head; rm -rf /usr/games; id -un", "root"),
        step(USER, "root"),
        step(
            RUN,
            "mkfifo /root/pipe; truncate -s 1G /root/sparse; ln -s /nowhere /root/link; sleep 300 > /dev/null 2>&1 &",
        ),
    )
    assert (built.default_user, built.default_workdir) == ("root", "/home/user/work")
    assert built.envs == {"COLOUR": "red", "BOTH": "red-blue"}
    other = "crun" if runtime == "runsc" else "runsc"
    for name in (runtime, other):
        seen = await site.seen(
            built,
            "cd /home/user/work; cat again; stat -c '%U %a %h' said run.sh lib/a /usr/local/bin/start /usr/bin/head;"
            "stat -c '%F %s' /root/pipe /root/sparse /root/link; ls -d /etc/motd /usr/games; ls -A /run/e2b",
            name,
        )
        assert seen[:3] == ["red-blue", "/home/user/work", "user"]
        assert seen[3:8] == ["user 644 2", "user 644 1", "user 644 1", "root 755 1", "root 4755 1"]
        assert seen[8:11] == ["fifo 0", f"regular file {1 << 30}", "symbolic link 8"]
        assert len([line for line in seen if "No such file" in line]) == 2
    assert (
        "6",
        "[6/9] RUN echo $BOTH > said; pwd >> said; id -un >> said; ln said again",
    ) in site.lines
    assert ("7", "root") in site.lines


async def test_builds_without_a_common_cache_give_the_same_bytes(site: Site) -> None:
    files = site.upload({"src/a.py": "import json\n"})
    steps = (
        step(COPY, "src", "/opt/lib", "root", "", files_hash=files),
        step(
            RUN,
            "python3 -m compileall -q /opt/lib && useradd other && rm -rf /var/log/* && ln /etc/passwd /opt/p",
            "root",
        ),
        step(RUN, "mkdir -p deep/er && seq 10000 > deep/er/numbers && chmod 700 deep"),
    )
    first = await site.build(*steps, project="p1")
    second = await site.build(*steps, project="p2")
    assert not any("CACHED" in text for _, text in site.lines)
    assert first.digest == second.digest
    use = "cd /opt/lib && stat -c %y __pycache__/* > /root/before; python3 -c 'import a'; "
    seen = await site.seen(first, use + "stat -c %y __pycache__/* | cmp /root/before")
    assert seen == [], "byte code is still valid"


async def test_a_cancelled_step_ends_its_sandbox(site: Site) -> None:
    begun = asyncio.Event()
    order = BuildOrder(
        str(uuid.uuid4()), "mine", Project("p1", "p1", datetime.now(UTC)), SIZE,
        Recipe(from_template="base", steps=(step(RUN, "echo begun; sleep 1000"),)),
    )  # fmt: skip
    async with asyncio.TaskGroup() as group:
        build = site.builder.build(order, lambda level, text, step: begun.set() if text == "begun" else None)
        task = group.create_task(build)
        await begun.wait()
        task.cancel()
    assert await site.engine.list() == []


async def test_a_step_out_of_memory_fails_and_says_so(site: Site) -> None:
    with pytest.raises(BuildFailed, match="exit status 7") as caught:
        await site.build(step(RUN, "python3 -c 'x = bytearray(2 << 30)'; echo end; exit 7"))
    assert caught.value.step == "1"
