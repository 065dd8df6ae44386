"""The suite on this machine: real runtimes, real network. Needs root."""

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import addresses, leaks
from tests.contract.engine_suite import EngineSuite, Rig
from tests.contract.sleep_suite import SleepSuite
from tests.contract.volume_suite import VolumeSuite
from warren.contracts.engine import Engine
from warren.engine.oci.cgroup import Cgroups
from warren.engine.oci.engine import OciEngine
from warren.engine.oci.record import Record
from warren.model.template import TemplateImage
from warren.settings import Settings, load

SLOTS = 5


class OciBench:
    slots = SLOTS

    def __init__(self, runtime: str, state_dir: Path) -> None:
        self.runtime = runtime
        tag = secrets.token_hex(2)
        base = load({name: value for name, value in os.environ.items() if name.startswith("WARREN_")})
        self.image = _base_image(base)
        self._settings = Settings(
            state_dir=state_dir,
            cache_dir=base.cache_dir,
            runsc_path=base.runsc_path,
            guestd_path=base.guestd_path or _built_guestd(),
            bridge=f"wc{tag}",
            network=addresses.block(27),
            runtime=runtime,
            pool_slots=2,
            max_slots=SLOTS,
        )
        self._before = leaks.snapshot(self._settings.bridge, state_dir)

    def engine(self) -> Engine:
        return OciEngine(self._settings)

    def kill_guest(self, engine: Engine, sandbox_id: str) -> None:
        folder = Path("/run/warren", self._settings.bridge, "sandboxes", sandbox_id)
        record = Record.read(folder)
        assert record is not None
        os.kill(record.pid, signal.SIGKILL)

    @property
    def cgroups(self) -> Cgroups:
        return Cgroups(f"warren_{self._settings.bridge}")

    def weight(self, sandbox_id: str) -> int:
        groups = self.cgroups
        kind, file = ("", "cpu.weight") if groups.is_v2 else ("cpu", "cpu.shares")
        return int((groups.folder(kind, sandbox_id) / file).read_text())

    def left_behind(self) -> dict[str, list[str]]:
        return leaks.difference(self._before, leaks.snapshot(self._settings.bridge, self._settings.state_dir))


def _base_image(settings: Settings) -> TemplateImage:
    found = sorted(settings.cache_dir.glob("templates/base-*/rootfs.erofs"))
    if not found:
        pytest.skip("no base template in the cache; run `make setup`")
    return TemplateImage("sha256:unchecked", str(found[-1]))


def _built_guestd() -> str:
    built = Path(__file__).parents[2] / "guestd" / "bin" / "guestd"
    return str(built) if built.exists() else ""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")
@pytest.mark.parametrize("runtime", ["runsc", "crun"])
class TestOciEngine(EngineSuite):
    @pytest.fixture
    def bench(self, runtime: str, tmp_path: Path) -> Iterator[OciBench]:
        return OciBench(runtime, tmp_path)

    async def test_what_starts_in_the_background_weighs_little_until_it_is_brought_forward(self, rig: Rig) -> None:
        assert isinstance(rig.bench, OciBench)
        groups = rig.bench.cgroups
        usual, spare = await rig.running(), await rig.running(in_background=True)
        assert rig.bench.weight(spare) <= rig.bench.weight(usual) / 4
        assert groups.background.read_text() == ""
        await rig.engine.bring_forward(spare)
        assert rig.bench.weight(spare) == rig.bench.weight(usual)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")
@pytest.mark.parametrize("runtime", ["runsc", "crun"])
class TestOciEngineAsleep(SleepSuite):
    @pytest.fixture
    def bench(self, runtime: str, tmp_path: Path) -> Iterator[OciBench]:
        return OciBench(runtime, tmp_path)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")
@pytest.mark.parametrize("runtime", ["runsc", "crun"])
class TestOciVolumes(VolumeSuite):
    @pytest.fixture
    def bench(self, runtime: str, tmp_path: Path) -> Iterator[OciBench]:
        return OciBench(runtime, tmp_path)
