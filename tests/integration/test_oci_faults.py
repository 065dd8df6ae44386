"""The engine when a runtime fails, hangs or is not there: a clear error, and nothing left behind."""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests import addresses, leaks
from warren.contracts.engine import SandboxSpec
from warren.engine.oci.adoption import kill_group
from warren.engine.oci.cgroup import Cgroups
from warren.engine.oci.confine import confine_this_thread
from warren.engine.oci.engine import OciEngine
from warren.engine.oci.record import Record
from warren.model.errors import BadRequest, EngineFailed, Unavailable
from warren.model.policy import ALL_TRAFFIC, EgressPolicy
from warren.model.sandbox import Resources
from warren.model.template import TemplateImage
from warren.settings import Settings, load

pytestmark = [
    pytest.mark.threat("E2"),
    pytest.mark.root,
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root"),
]
SMALL = Resources(cpu_count=1, memory_mb=256, disk_mb=64, pids=100)
ID = "i" + "f" * 20

Wrapper = Callable[[str, str], str]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    tag = secrets.token_hex(2)
    base = load({name: value for name, value in os.environ.items() if name.startswith("WARREN_")})
    built = Path(__file__).parents[2] / "guestd" / "bin" / "guestd"
    return Settings(
        state_dir=tmp_path / "state",
        cache_dir=base.cache_dir,
        runsc_path=base.runsc_path,
        guestd_path=base.guestd_path or (str(built) if built.exists() else ""),
        bridge=f"wf{tag}",
        network=addresses.block(28),
        pool_slots=1,
        max_slots=2,
    )


@pytest.fixture
def image(settings: Settings) -> TemplateImage:
    found = sorted(settings.cache_dir.glob("templates/base-*/rootfs.erofs"))
    if not found:
        pytest.skip("no base template in the cache; run `make setup`")
    return TemplateImage("sha256:unchecked", str(found[-1]))


@pytest.fixture
def wrapped(settings: Settings, tmp_path: Path) -> Wrapper:
    """A runtime binary with a fault: a script that gets its own words as $@ and the real runtime's path as $real."""

    def make(runtime: str, script: str) -> str:
        real = settings.runsc if runtime == "runsc" else shutil.which(settings.crun_path)
        path = tmp_path / runtime
        path.write_text(f"#!/bin/bash\nreal={real}\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return make


def with_runtime(settings: Settings, runtime: str, binary: str) -> Settings:
    return replace(settings, runtime=runtime, **{f"{runtime}_path": binary})  # type: ignore[arg-type]


async def fails(settings: Settings, image: TemplateImage, words: str) -> None:
    """Create fails with these words, nothing is left of it, and the engine goes on."""
    before = leaks.snapshot(settings.bridge, settings.state_dir)
    engine = OciEngine(settings)
    await engine.open()
    try:
        with pytest.raises(EngineFailed, match=words):
            await engine.create(SandboxSpec(ID, settings.runtime, image, "box", SMALL))
        assert await engine.list() == []
    finally:
        await engine.close()
    assert leaks.difference(before, leaks.snapshot(settings.bridge, settings.state_dir)) == {}


@pytest.mark.parametrize("runtime", ["runsc", "crun"])
async def test_a_runtime_that_refuses_is_quoted(
    settings: Settings, image: TemplateImage, wrapped: Wrapper, runtime: str
) -> None:
    script = """
    for word; do case $word in --log=*) log=${word#--log=}; log=${log#file:};; run) echo "no, not today" > $log; exit 3
    esac; done; exec $real "$@" """
    await fails(with_runtime(settings, runtime, wrapped(runtime, script)), image, "cannot start .*no, not today")


@pytest.mark.parametrize("runtime", ["runsc", "crun"])
async def test_a_runtime_that_hangs_is_cut_off(
    settings: Settings, image: TemplateImage, wrapped: Wrapper, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"warren.engine.oci.{runtime}.START_DEADLINE_S", 1.5)
    script = '[[ " $* " == *" run "* ]] || exec $real "$@"; $real "$@"; exec sleep 600'
    await fails(with_runtime(settings, runtime, wrapped(runtime, script)), image, "did not finish within 1.5 s")


@pytest.mark.parametrize("runtime", ["runsc", "crun"])
async def test_a_missing_runtime_is_named(settings: Settings, image: TemplateImage, runtime: str) -> None:
    broken = with_runtime(settings, runtime, "/nonexistent/runtime")
    engine = OciEngine(broken)
    await engine.open()
    with pytest.raises(EngineFailed, match=r"/nonexistent/runtime.*warren doctor"):
        await engine.create(SandboxSpec(ID, runtime, image, "box", SMALL))
    await engine.close()
    cleaner = OciEngine(settings)
    await cleaner.open()
    await cleaner.close()
    assert not Path("/run/warren", settings.bridge).exists()


@pytest.mark.parametrize("runtime", ["runsc", "crun"])
async def test_a_missing_image_is_named(settings: Settings, runtime: str) -> None:
    await fails(replace(settings, runtime=runtime), TemplateImage("sha256:0", "/nonexistent/rootfs.erofs"), "nonexist")


@pytest.mark.parametrize("runtime", ["runsc", "crun"])
async def test_a_new_server_clears_what_was_half_made(settings: Settings, image: TemplateImage, runtime: str) -> None:
    """As after a crash between the start of the runtime and the note of its pid."""
    before = leaks.snapshot(settings.bridge, settings.state_dir)
    settings = replace(settings, runtime=runtime)
    first = OciEngine(settings)
    await first.open()
    await first.create(SandboxSpec(ID, runtime, image, "box", SMALL))
    await first.close()
    folder = Path("/run/warren", settings.bridge, "sandboxes", ID)
    record = Record.read(folder)
    assert record is not None
    replace(record, pid=0, started=0).write(folder)
    second = OciEngine(settings)
    await second.open()
    assert await second.list() == []
    await second.close()
    assert leaks.difference(before, leaks.snapshot(settings.bridge, settings.state_dir)) == {}


async def test_a_reused_pid_is_not_taken_for_the_sandbox(settings: Settings, image: TemplateImage) -> None:
    settings = replace(settings, runtime="crun")
    first = OciEngine(settings)
    await first.open()
    await first.create(SandboxSpec(ID, "crun", image, "box", SMALL))
    await first.close()
    folder = Path("/run/warren", settings.bridge, "sandboxes", ID)
    record = Record.read(folder)
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    replace(record, pid=os.getpid()).write(folder)
    second = OciEngine(settings)
    await second.open()
    assert await second.list() == []
    await second.close()
    assert not Path("/run/warren", settings.bridge).exists()


async def test_a_run_folder_of_another_boot_is_forgotten(settings: Settings, image: TemplateImage) -> None:
    settings = replace(settings, runtime="crun")
    first = OciEngine(settings)
    await first.open()
    await first.create(SandboxSpec(ID, "crun", image, "box", SMALL))
    placed = await first.list()
    await first.close()
    run = Path("/run/warren", settings.bridge)
    (run / "boot").write_text("of another boot")
    second = OciEngine(settings)
    await second.open()
    assert len(placed) == 1
    assert await second.list() == []
    await second.close()
    assert not run.exists()


async def test_the_bridge_belongs_to_one_server_whatever_its_state_folder(settings: Settings, tmp_path: Path) -> None:
    first, second = OciEngine(settings), OciEngine(replace(settings, state_dir=tmp_path / "other"))
    await first.open()
    with pytest.raises(Unavailable, match="bridge"):
        await second.open()
    await first.close()
    await second.open()
    await second.close()


async def test_rules_that_somebody_flushed_are_put_back(settings: Settings, image: TemplateImage) -> None:
    settings = replace(settings, runtime="crun")
    engine = OciEngine(settings)
    await engine.open()
    policy = EgressPolicy(deny=(ALL_TRAFFIC,))
    placed = await engine.create(SandboxSpec(ID, "crun", image, "box", SMALL, policy))
    for family in ("inet", "bridge"):
        subprocess.run(["nft", "delete", "table", family, f"warren_{settings.bridge}"], check=True)
    async with asyncio.timeout(15):
        while placed.address not in _rules("bridge", settings) or placed.address not in _rules("inet", settings):
            await asyncio.sleep(0.1)
    await engine.destroy(ID)
    await engine.close()


def _rules(family: str, settings: Settings) -> str:
    argv = ["nft", "list", "table", family, f"warren_{settings.bridge}"]
    return subprocess.run(argv, capture_output=True, text=True).stdout


async def test_the_server_never_kills_itself_for_a_thread_in_a_sandboxes_group(settings: Settings) -> None:
    cgroups = Cgroups(f"warren_{settings.bridge}")
    if cgroups.is_v2:
        pytest.skip("threads enter groups on v1 only")
    entered, leave = threading.Event(), threading.Event()

    def enter() -> None:
        confine_this_thread(cgroups.root, cgroups.path(ID), SMALL)
        entered.set()
        leave.wait(10)

    thread = threading.Thread(target=enter)
    thread.start()
    assert entered.wait(10)
    assert os.getpid() in cgroups.pids(ID)
    kill_group(cgroups, ID)
    leave.set()
    thread.join()
    cgroups.remove(ID)
    cgroups.remove_parent()


async def test_an_id_that_could_be_a_path_is_refused(settings: Settings, image: TemplateImage) -> None:
    engine = OciEngine(settings)
    await engine.open()
    for name in ("../../../../tmp/x", "i" + "/" * 20, "", "-rf", "i" + "A" * 20):
        with pytest.raises(BadRequest, match="sandbox id"):
            await engine.create(SandboxSpec(name, "crun", image, "box", SMALL))
    await engine.close()


async def test_many_creates_and_destroys_at_once_leave_nothing(settings: Settings, image: TemplateImage) -> None:
    before = leaks.snapshot(settings.bridge, settings.state_dir)
    engine = OciEngine(replace(settings, network=IPv4Network("198.18.255.0/27"), runtime="crun", max_slots=8))
    await engine.open()

    async def churn(worker: int) -> None:
        for turn in range(5):
            sandbox = f"ichurn{worker:02d}{turn:013d}"
            await engine.create(SandboxSpec(sandbox, "crun", image, "box", SMALL))
            await engine.destroy(sandbox)

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for worker in range(6):
            tasks.create_task(churn(worker))
    await engine.close()
    assert leaks.difference(before, leaks.snapshot(settings.bridge, settings.state_dir)) == {}
