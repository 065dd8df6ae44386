"""The code interpreter from memory: taken once, kernels up in every sandbox, each with random numbers of its own."""

import time
from collections.abc import Iterator

import pytest
from e2b_code_interpreter import Sandbox

from tests.e2e.cleanliness import nothing_left
from tests.e2e.conftest import RUNTIMES
from tests.e2e.interpreter import TEST_DEADLINE_S
from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until

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


KNOWN = {
    "python": ("known = [6]", "known.append(7); known", "[6, 7]"),
    "js": ("let known = 6", "known * 7", "42"),
    "r": ("known <- 6", "known * 7", "[1] 42"),
    "bash": ("known=6", "echo $((known * 7))", "42"),
}
"""For each language: what it is told, asked later, and answers."""
DRAWN = {**RANDOM, "r": "runif(3)", "bash": "echo $RANDOM $RANDOM $RANDOM"}
NUMPY = """
import os, time, numpy
numpy.random.seed(5)
while True:
    if os.path.exists("/tmp/ask"):
        with open("/tmp/part", "w") as file:
            file.write(str(numpy.random.random()))
        os.rename("/tmp/part", "/tmp/told")
        os.unlink("/tmp/ask")
    time.sleep(0.01)
"""
"""A program of its own, beside the kernels: it draws when it is asked."""


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


def said(box: Sandbox, code: str, language: str) -> str:
    execution = box.run_code(code, language=language)
    assert execution.error is None, execution.error
    return (execution.text or "".join(execution.logs.stdout)).strip()


def draws(box: Sandbox) -> str:
    """The next number of the program with numpy."""
    box.files.write("/tmp/ask", "")
    until(lambda: not box.files.exists("/tmp/ask"), TAKING_DEADLINE_S, "it drew")
    return box.files.read("/tmp/told")


@pytest.mark.covers("I02", "S15", "S19")
def test_kernels_remember_over_a_pause_and_in_copies_that_draw_numbers_of_their_own(primed: LocalServer) -> None:
    box = Sandbox.create(timeout=300, **primed.options)
    family = [box]
    try:
        context = box.create_code_context()
        box.run_code("mine = 'kept'", context=context)
        python = box.run_code("import sys; sys.executable").text
        box.files.write("/tmp/numpy.py", NUMPY)
        box.commands.run(f"exec {python} -P /tmp/numpy.py", background=True, timeout=0)
        for language, (told, _, _) in KNOWN.items():
            said(box, told, language), said(box, DRAWN[language], language)
        first = draws(box)
        assert box.pause(**primed.options)
        family = [Sandbox.connect(box.sandbox_id, **primed.options)]
        family += [copy for copy in family[0].fork(count=2, timeout=120, **primed.options) if isinstance(copy, Sandbox)]
        assert len(family) == 3
        for one in family:
            assert {language: said(one, asked, language) for language, (_, asked, _) in KNOWN.items()} == {
                language: answer for language, (_, _, answer) in KNOWN.items()
            }
            assert one.run_code("mine", context=context).text == "kept"
        for language, code in DRAWN.items():
            assert len({said(one, code, language) for one in family}) == len(family), language
        assert len({first, *map(draws, family)}) == 1 + len(family)
    finally:
        for one in family:
            one.kill()


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
