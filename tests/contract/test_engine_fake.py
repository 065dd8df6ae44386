import pytest

from tests.contract.engine_suite import EngineSuite
from tests.contract.sleep_suite import SleepSuite
from tests.contract.volume_suite import VolumeSuite
from warren.contracts.engine import Engine
from warren.engine.fake.engine import FakeEngine, FakeMachine
from warren.model.template import TemplateImage


class FakeBench:
    runtime = "fake"
    image = TemplateImage("sha256:00", __file__)
    slots = 5

    def __init__(self) -> None:
        self.machine = FakeMachine(slots=self.slots)

    def engine(self) -> Engine:
        return FakeEngine(("fake",), machine=self.machine)

    def kill_guest(self, engine: Engine, sandbox_id: str) -> None:
        self.machine.sandboxes[sandbox_id].gone.set()

    def left_behind(self) -> dict[str, list[str]]:
        return {"sandboxes": sorted(self.machine.sandboxes)} if self.machine.sandboxes else {}


class TestFakeEngine(EngineSuite):
    @pytest.fixture
    def bench(self) -> FakeBench:
        return FakeBench()


class TestFakeEngineAsleep(SleepSuite):
    @pytest.fixture
    def bench(self) -> FakeBench:
        return FakeBench()


class TestFakeVolumes(VolumeSuite):
    @pytest.fixture
    def bench(self) -> FakeBench:
        return FakeBench()


class MemorylessBench(FakeBench):
    runtime = "crun"

    def engine(self) -> Engine:
        return FakeEngine(("crun",), machine=self.machine)


class TestFakeEngineWithoutMemory(SleepSuite):
    @pytest.fixture
    def bench(self) -> FakeBench:
        return MemorylessBench()
