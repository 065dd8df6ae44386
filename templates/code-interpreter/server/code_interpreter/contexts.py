"""Contexts: a kernel with a name each, in which executions take turns."""

import asyncio
import logging
import os
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from code_interpreter import limits, lines
from code_interpreter.kernel import Kernel, KernelDied, KernelFailed
from code_interpreter.languages import LANGUAGES, TYPESCRIPT_MARK, Language, named

log = logging.getLogger(__name__)

HOME = "/home/user"
PREPARED = ("python", "javascript")
"""Languages whose default context is there from the start."""
GENERATION = Path("/run/warren/fork")
"""Another content in each copy of a sandbox."""
STARTED_ANEW = "it was started anew, and its variables are lost\n"
Spawn = Callable[[Coroutine[Any, Any, None]], object]


class ContextMissing(Exception):
    """the context does not exist"""


class TooMany(Exception):
    """cannot take another one"""


@dataclass
class Context:
    id: str
    label: str
    language: Language
    cwd: str
    kernel: Kernel
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    applied: Mapping[str, str] = field(default_factory=dict[str, str])
    """The sandbox's environment as the kernel knows it."""
    generation: bytes = b""
    notice: str = ""
    """What the next execution should be told."""
    restarts: int = 0
    is_removed: bool = False

    def document(self) -> dict[str, str]:
        return {"id": self.id, "language": self.label, "cwd": self.cwd}


class Contexts:
    """All contexts of the sandbox. `spawn` keeps what must go on when a client is gone."""

    def __init__(self, spawn: Spawn, kernel: Callable[[Language, str], Kernel] = Kernel) -> None:
        self._spawn, self._kernel = spawn, kernel
        self._contexts: dict[str, Context] = {}
        self._defaults: dict[str, str] = {}
        self._creating = {language: asyncio.Lock() for language in LANGUAGES}

    async def prepare(self) -> None:
        made = [self._new(language, language, HOME) for language in PREPARED]
        await asyncio.gather(*(context.kernel.start() for context in made))
        for context in made:
            self._defaults[context.label] = context.id
            self._contexts[context.id] = context

    @property
    def is_ready(self) -> bool:
        return all(language in self._defaults for language in PREPARED)

    def documents(self) -> list[dict[str, str]]:
        return [context.document() for context in self._contexts.values()]

    async def create(self, language: str | None, cwd: str | None) -> Context:
        """Raises KernelFailed for an unknown language, a folder that is none, a kernel that does not start; TooMany."""
        label, engine = named(language)
        folder = cwd or HOME
        if engine not in LANGUAGES:
            known = ", ".join([*LANGUAGES, "typescript"])
            raise KernelFailed(f"cannot run {label!r}: this sandbox has {known}")
        if not await asyncio.to_thread(os.path.isdir, folder):
            raise KernelFailed(f"cannot use {folder!r} as working directory: it is no folder")
        if len(self._contexts) >= limits.CONTEXTS_MAX:
            raise TooMany(f"cannot make another context: there are {limits.CONTEXTS_MAX}; remove some")
        context = self._new(label, engine, folder)
        await context.kernel.start()
        self._contexts[context.id] = context
        return context

    def _new(self, label: str, engine: str, cwd: str) -> Context:
        language = LANGUAGES[engine]
        return Context(str(uuid.uuid4()), label, language, cwd, self._kernel(language, cwd), generation=generation())

    def find(self, context_id: str) -> Context:
        """Raises ContextMissing."""
        context = self._contexts.get(context_id)
        if context is None:
            raise ContextMissing(f"Context {context_id} not found")
        return context

    async def default(self, language: str | None) -> Context:
        """The context of a language for callers that name none; made at first use. Raises what `create` raises."""
        _, engine = named(language)
        if engine not in LANGUAGES:
            await self.create(language, HOME)  # says what there is
        async with self._creating[engine]:
            if engine not in self._defaults:
                self._defaults[engine] = (await self.create(engine, HOME)).id
            return self._contexts[self._defaults[engine]]

    async def remove(self, context_id: str) -> None:
        """Raises ContextMissing."""
        context = self.find(context_id)
        del self._contexts[context_id]
        self._defaults = {language: each for language, each in self._defaults.items() if each != context_id}
        context.is_removed = True
        await context.kernel.stop()

    async def restart(self, context_id: str) -> None:
        """Whatever runs in it is broken off; its variables are lost. Raises ContextMissing, KernelFailed."""
        context = self.find(context_id)
        context.restarts += 1
        await context.kernel.stop()
        async with context.turn:
            await self._revive(context, "")

    async def supervise(self) -> None:
        """Start kernels anew that died while nobody used them."""
        while True:
            await asyncio.sleep(limits.SUPERVISION_S)
            for context in list(self._contexts.values()):
                if not context.turn.locked() and not await context.kernel.is_alive():
                    await self._heal(context, "the kernel had ended; " + STARTED_ANEW)

    async def _heal(self, context: Context, notice: str) -> None:
        async with context.turn:
            if context.is_removed or await context.kernel.is_alive():
                return
            try:
                await self._revive(context, notice)
            except KernelFailed as error:
                log.warning("%s", error)

    async def _revive(self, context: Context, notice: str) -> None:
        await context.kernel.start()
        context.applied, context.generation, context.notice = {}, generation(), notice
        if context.is_removed:
            await context.kernel.stop()

    async def close(self) -> None:
        await asyncio.gather(*(context.kernel.stop() for context in self._contexts.values()))

    async def run(
        self, context: Context, code: str, label: str, envs: Mapping[str, str], lent: Mapping[str, str]
    ) -> AsyncGenerator[lines.Line]:
        """Lines of one execution. A caller that closes it early has the code interrupted, and waits for nothing."""
        if context.waiting >= limits.WAITING_MAX:
            raise TooMany(f"cannot wait for context {context.id}: {limits.WAITING_MAX} executions do already")
        context.waiting += 1
        try:
            while not await _took_turn(context):
                yield lines.KEEPALIVE
        finally:
            context.waiting -= 1
        is_done, restarts = False, context.restarts
        try:
            async with aclosing(self._lines(context, code, label, envs, lent)) as said:
                async for line in said:
                    yield line
            is_done = True
        except KernelDied:
            yield _ending(context, restarts)
        except KernelFailed as error:
            yield lines.error("ExecutionAborted", str(error))
        finally:
            if is_done:
                context.turn.release()
            else:
                self._spawn(self._settle(context, list(lent), restarts))
        yield lines.END

    async def _lines(
        self, context: Context, code: str, label: str, envs: Mapping[str, str], lent: Mapping[str, str]
    ) -> AsyncGenerator[lines.Line]:
        if not await context.kernel.is_alive():
            await self._revive(context, "the kernel had ended; " + STARTED_ANEW)
        await self._prelude(context, envs, lent)
        if context.notice:
            yield lines.output("stderr", context.notice)
            context.notice = ""
        if label == "typescript":
            code = TYPESCRIPT_MARK + code
        reading = lines.Reading(context.language.name)
        async with aclosing(context.kernel.execute(code)) as said:
            async for message in said:
                if message is None:
                    yield lines.KEEPALIVE
                    continue
                for line in reading.lines_of(message):
                    yield line
        if lent:
            await _aside(context, context.language.take_back(lent))

    async def _prelude(self, context: Context, envs: Mapping[str, str], lent: Mapping[str, str]) -> None:
        """What the kernel has to know first: that it is a copy, the sandbox's environment, this execution's."""
        language, now, code = context.language, generation(), list[str]()
        if now != context.generation and language.reseed:
            code.append(language.reseed)
        if envs != context.applied:
            changed = {name: value for name, value in envs.items() if context.applied.get(name) != value}
            code.append(language.assign(changed, [name for name in context.applied if name not in envs]))
        if lent:
            code.append(language.lend(lent))
        if code:
            await _aside(context, language.separator.join(code))
        context.generation, context.applied = now, dict(envs)

    async def _settle(self, context: Context, lent: list[str], restarts: int) -> None:
        """Bring a context whose execution was broken off to where the next can begin, then let that have its turn."""
        try:
            if context.is_removed or context.restarts != restarts:
                return  # whoever did that starts the kernel
            if not await context.kernel.is_alive():
                await self._revive(context, "")
            elif not await _interrupted(context):
                await self._revive(context, "the kernel did not heed an interrupt; " + STARTED_ANEW)
            elif code := _after_an_interrupt(context.language, lent):
                await _aside(context, code)
        except (KernelFailed, KernelDied) as error:
            log.warning("context %s is not well: %s", context.id, error)
        finally:
            context.turn.release()


def generation() -> bytes:
    try:
        return GENERATION.read_bytes()[:64]
    except OSError:
        return b""


async def _took_turn(context: Context) -> bool:
    try:
        async with asyncio.timeout(limits.KEEPALIVE_S):
            await context.turn.acquire()
    except TimeoutError:
        return False
    return True


def _ending(context: Context, restarts: int) -> lines.Line:
    if context.is_removed:
        return lines.error("ExecutionAborted", "the context was removed while the code ran")
    if context.restarts != restarts:
        return lines.error("ContextRestarting", "the context was restarted while the code ran")
    return lines.error("UnexpectedEndOfExecution", "the kernel ended while the code ran; its variables are lost")


def _after_an_interrupt(language: Language, lent: list[str]) -> str:
    code = [language.halt, language.take_back(lent) if lent else ""]
    return language.separator.join(filter(None, code))


async def _aside(context: Context, code: str) -> None:
    """Run code of ours between a caller's. Raises KernelDied, KernelFailed."""
    try:
        async with asyncio.timeout(limits.ASIDE_DEADLINE_S):
            async for _ in context.kernel.execute(code, aside=True):
                pass
    except TimeoutError:
        raise KernelFailed("cannot prepare the execution: the kernel does not answer") from None


async def _interrupted(context: Context) -> bool:
    """Interrupt until the kernel answers something harmless; False if it does not."""
    try:
        async with asyncio.timeout(limits.INTERRUPT_DEADLINE_S):
            while True:
                await context.kernel.interrupt()
                try:
                    async with asyncio.timeout(limits.INTERRUPT_EVERY_S):
                        await _aside(context, "")
                        return True
                except TimeoutError:
                    continue
    except TimeoutError:
        return False
