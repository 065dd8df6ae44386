"""Contexts over a kernel that does what the test says: turns, environment, death, restart, clients that go away."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from code_interpreter import contexts as contexts_module
from code_interpreter import limits
from code_interpreter.contexts import ContextMissing, Contexts, TooMany
from code_interpreter.kernel import KernelDied, KernelFailed
from code_interpreter.languages import LANGUAGES, Language

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class FakeKernel:
    """Says each word of the code; "die" ends the process, "hang" waits for an interrupt, "deaf" ignores those."""

    def __init__(self, language: Language, cwd: str) -> None:
        self.language, self.cwd = language, cwd
        self.alive = False
        self.starts = 0
        self.asides: list[str] = []
        self.interrupted = asyncio.Event()
        self.is_deaf = False
        made.append(self)

    async def start(self) -> None:
        self.alive, self.is_deaf = True, False
        self.starts += 1

    async def stop(self) -> None:
        self.alive = False
        self.interrupted.set()

    async def is_alive(self) -> bool:
        return self.alive

    async def interrupt(self) -> None:
        self.interrupted.set()

    async def execute(self, code: str, *, aside: bool = False) -> AsyncGenerator[dict[str, Any] | None]:
        if aside:
            self.asides += [code] if code else []
            if self.is_deaf:
                await asyncio.Event().wait()
            return
        for word in code.split():
            if word == "die":
                self.alive = False
            if word in ("hang", "deaf"):
                self.is_deaf = word == "deaf"
                self.interrupted.clear()
                yield None
                await self.interrupted.wait()
            if not self.alive:
                raise KernelDied
            yield {"msg_type": "stream", "content": {"name": "stdout", "text": word}}
        yield {"msg_type": "execute_reply", "content": {"status": "ok"}}


made: list[FakeKernel] = []


class Desk:
    """Contexts, and a way to say what one execution answers."""

    def __init__(self, contexts: Contexts) -> None:
        self.contexts = contexts

    async def say(self, code: str, *, context_id: str = "", envs: Any = None, lent: Any = None) -> list[str]:
        context = self.contexts.find(context_id) if context_id else await self.contexts.default("python")
        lines = self.contexts.run(context, code, context.label, envs or {}, lent or {})
        return [f"{line['type']} {line.get('text', line.get('name', ''))}".strip() async for line in lines]


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Desk]:
    made.clear()
    monkeypatch.setattr(limits, "INTERRUPT_EVERY_S", 0.01)
    monkeypatch.setattr(limits, "INTERRUPT_DEADLINE_S", 0.05)
    monkeypatch.setattr(limits, "KEEPALIVE_S", 0.01)
    monkeypatch.setattr(contexts_module, "HOME", "/")
    async with asyncio.TaskGroup() as tasks:
        spawn: Callable[[Coroutine[Any, Any, None]], object] = tasks.create_task
        contexts = Contexts(spawn, FakeKernel)  # pyright: ignore[reportArgumentType]
        await contexts.prepare()
        yield Desk(contexts)


async def test_python_and_javascript_are_there_from_the_start_and_a_new_one_comes_last(desk: Desk) -> None:
    added = await desk.contexts.create(" Bash ", "/tmp")
    listed = desk.contexts.documents()
    assert [each["language"] for each in listed] == ["python", "javascript", "bash"]
    assert listed[-1] == {"id": added.id, "language": "bash", "cwd": "/tmp"}


async def test_typescript_runs_in_the_kernel_of_javascript(desk: Desk) -> None:
    assert await desk.contexts.default("ts") is await desk.contexts.default("js")
    assert len(made) == 2


async def test_a_language_s_context_is_made_once_however_many_ask(desk: Desk) -> None:
    first, second = await asyncio.gather(desk.contexts.default("r"), desk.contexts.default("R"))
    assert first is second


async def test_what_cannot_be_made_says_so(desk: Desk) -> None:
    with pytest.raises(KernelFailed, match="cannot run 'cobol': this sandbox has python"):
        await desk.contexts.default("cobol")
    with pytest.raises(KernelFailed, match="no folder"):
        await desk.contexts.create("python", "/nowhere")
    with pytest.raises(ContextMissing, match="Context x not found"):
        desk.contexts.find("x")


async def test_the_environment_is_told_once_and_again_when_it_changes(desk: Desk) -> None:
    for envs in ({"A": "1"}, {"A": "1"}, {"B": "2"}):
        await desk.say("x", envs=envs)
    assert made[0].asides == [
        LANGUAGES["python"].assign({"A": "1"}, []),
        LANGUAGES["python"].assign({"B": "2"}, ["A"]),
    ]


async def test_variables_of_one_execution_are_taken_back(desk: Desk) -> None:
    await desk.say("x", lent={"A": "1"})
    assert made[0].asides == [LANGUAGES["python"].lend({"A": "1"}), LANGUAGES["python"].take_back(["A"])]


async def test_a_copy_draws_its_own_random_numbers_before_its_first_execution(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.say("x")
    monkeypatch.setattr(contexts_module, "generation", lambda: b"another")
    await desk.say("x")
    await desk.say("x")
    assert made[0].asides == [LANGUAGES["python"].reseed]


async def test_executions_of_one_context_take_turns_and_those_that_wait_hear_something(desk: Desk) -> None:
    context = await desk.contexts.default("python")
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(desk.say("hang one"))
        second = tasks.create_task(desk.say("two"))
        while not context.waiting:
            await asyncio.sleep(0)
        await asyncio.sleep(limits.KEEPALIVE_S * 2)
        assert not second.done()
        made[0].interrupted.set()
    assert first.result() == ["keepalive", "stdout hang", "stdout one", "end_of_execution"]
    assert second.result()[0] == "keepalive"
    assert second.result()[-2:] == ["stdout two", "end_of_execution"]


async def test_no_more_wait_than_may(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WAITING_MAX", 0)
    with pytest.raises(TooMany):
        await desk.say("x")


async def test_a_kernel_that_dies_at_work_is_said_and_started_anew(desk: Desk) -> None:
    assert await desk.say("one die two") == ["stdout one", "error UnexpectedEndOfExecution", "end_of_execution"]
    assert await desk.say("three") == ["stdout three", "end_of_execution"]
    assert made[0].starts == 2


async def test_a_kernel_that_died_unnoticed_is_started_anew_and_that_is_said(desk: Desk) -> None:
    made[0].alive = False
    assert await desk.say("x") == [
        "stderr the kernel had ended; it was started anew, and its variables are lost", "stdout x", "end_of_execution",
    ]  # fmt: skip


async def test_a_client_that_goes_away_has_its_code_interrupted_and_the_next_call_has_its_turn(desk: Desk) -> None:
    context = await desk.contexts.default("python")
    async with aclosing(desk.contexts.run(context, "hang one", "python", {}, {"A": "1"})) as lines:
        assert (await anext(lines))["type"] == "keepalive"
    assert await desk.say("two") == ["stdout two", "end_of_execution"]
    assert made[0].interrupted.is_set()
    assert made[0].asides[-1] == LANGUAGES["python"].take_back(["A"])
    assert made[0].starts == 1


async def test_what_an_interrupt_leaves_running_is_ended(desk: Desk) -> None:
    context = await desk.contexts.default("java")
    async with aclosing(desk.contexts.run(context, "hang one", "java", {}, {})) as lines:
        await anext(lines)
    async with context.turn:
        assert made[-1].asides == [LANGUAGES["java"].halt]


async def test_code_that_heeds_no_interrupt_loses_its_kernel(desk: Desk) -> None:
    context = await desk.contexts.default("python")
    async with aclosing(desk.contexts.run(context, "deaf", "python", {}, {})) as lines:
        await anext(lines)
    said = await desk.say("two")
    assert said[-3].startswith("stderr the kernel did not heed an interrupt")
    assert said[-2:] == ["stdout two", "end_of_execution"]
    assert made[0].starts == 2


@pytest.mark.parametrize(("act", "name"), [("restart", "ContextRestarting"), ("remove", "ExecutionAborted")])
async def test_what_runs_in_a_context_that_is_restarted_or_removed_is_broken_off(
    desk: Desk, act: str, name: str
) -> None:
    context = await desk.contexts.create("python", "/")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.say("hang one", context_id=context.id))
        while not context.turn.locked():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await getattr(desk.contexts, act)(context.id)
    assert running.result()[-2:] == [f"error {name}", "end_of_execution"]
    if act == "restart":
        assert await desk.say("two", context_id=context.id) == ["stdout two", "end_of_execution"]
    else:
        with pytest.raises(ContextMissing):
            desk.contexts.find(context.id)


async def test_the_watch_starts_dead_kernels_anew(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SUPERVISION_S", 0)
    made[1].alive = False
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(desk.contexts.supervise())
        while made[1].starts < 2:
            await asyncio.sleep(0)
        watch.cancel()
