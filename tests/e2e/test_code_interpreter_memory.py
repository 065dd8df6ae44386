"""The code interpreter from memory: taken once, kernels up in every sandbox, each with random numbers of its own."""

import time
from collections.abc import Iterator

import pytest
from e2b_code_interpreter import Sandbox

from tests.e2e.cleanliness import nothing_left
from tests.e2e.conftest import RUNTIMES
from tests.e2e.interpreter import TEST_DEADLINE_S
from tests.e2e.local_server import LocalServer

pytestmark = [
    pytest.mark.timeout(TEST_DEADLINE_S),
    pytest.mark.skipif("runsc" not in RUNTIMES, reason="only gVisor keeps memory"),
]
TAKEN = "sandboxes of this template start from memory"
TAKING_DEADLINE_S = 120
RANDOM = {
    "python": "import random, numpy, ssl; [random.random(), numpy.random.random(), ssl.RAND_bytes(8)]",
    "js": "[Math.random(), require('crypto').randomUUID()].join()",
}


def wait_for_memory(server: LocalServer, times: int) -> None:
    ends = time.monotonic() + TAKING_DEADLINE_S
    while server.log.read_text().count(TAKEN) < times:
        assert time.monotonic() < ends, server.log.read_text()[-2000:]
        time.sleep(0.2)


@pytest.fixture(scope="module")
def primed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    local = LocalServer(tmp_path_factory.mktemp("primed"), prime_templates=1)
    with nothing_left(local), local:
        wait_for_memory(local, 1)
        yield local


@pytest.mark.covers("I01", "I05")
def test_two_sandboxes_start_from_one_memory_and_draw_numbers_of_their_own(primed: LocalServer) -> None:
    boxes = [Sandbox.create(timeout=300, envs={"MINE": str(n)}, **primed.options) for n in range(2)]
    try:
        drawn = {
            (box.sandbox_id, box.run_code(code, language=each).text) for box in boxes for each, code in RANDOM.items()
        }
        assert len({text for _, text in drawn}) == 2 * len(RANDOM)
        boots = {box.commands.run("cat /proc/sys/kernel/random/boot_id").stdout for box in boxes}
        assert len(boots) == 1  # it comes along with memory
        assert [box.run_code("import os; os.environ['MINE']").text for box in boxes] == ["0", "1"]
        assert {each.language for each in boxes[0].list_code_contexts()} == {"python", "javascript"}
    finally:
        for box in boxes:
            box.kill()


@pytest.mark.covers("I01")
def test_the_next_server_finds_the_memory_that_the_one_before_took(primed: LocalServer) -> None:
    checkpoints = sorted(path.name for path in primed.state.glob("**/build-cache/*.memory"))
    assert len(checkpoints) == 1
    primed.stop()
    primed.start()
    wait_for_memory(primed, 2)
    assert sorted(path.name for path in primed.state.glob("**/build-cache/*.memory")) == checkpoints
    with Sandbox.create(timeout=300, **primed.options) as box:
        assert box.run_code("6 * 7").text == "42"


@pytest.mark.covers("I01")
def test_a_copy_of_a_copy_that_booted_from_its_files_runs_code(primed: LocalServer) -> None:
    with Sandbox.create(timeout=300, **primed.options) as box:
        first = box.create_snapshot()
        with Sandbox.create(first.snapshot_id, timeout=300, **primed.options) as copy:
            assert copy.pause(mode="filesystem")
            copy.connect(timeout=300)
            assert copy.run_code("6 * 7").text == "42"
