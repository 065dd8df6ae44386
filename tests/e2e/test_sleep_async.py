"""Pause, wake, fork and snapshots through the async client: a REPL that remembers, streams that are made again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from e2b import AsyncSandbox, FilesystemEvent, SandboxException, SandboxState

pytestmark = pytest.mark.anyio
BOOT_ID = "/proc/sys/kernel/random/boot_id"
WITHIN_S = 30
REPL = "exec python3 -i -q -u"


class Repl:
    """A Python that waits for lines; what it prints comes from the stream that was opened last."""

    def __init__(self, sandbox: AsyncSandbox) -> None:
        self._sandbox, self._printed = sandbox, asyncio.Queue[str]()
        self.handle: Any = None

    async def start(self) -> "Repl":
        self.handle = await self._sandbox.commands.run(
            REPL, background=True, stdin=True, timeout=0, on_stdout=self._printed.put_nowait
        )
        return self

    async def reconnect(self, sandbox: AsyncSandbox, pid: int) -> "Repl":
        self.handle = await sandbox.commands.connect(pid, timeout=0, on_stdout=self._printed.put_nowait)
        return self

    async def ask(self, line: str) -> str:
        """What it prints for one line that prints one word."""
        await self._sandbox.commands.send_stdin(self.handle.pid, f"{line}\n")
        printed = ""
        async with asyncio.timeout(WITHIN_S):
            while not printed.endswith("\n"):
                printed += await self._printed.get()
        return printed.strip()


@asynccontextmanager
async def killed_after(*sandboxes: AsyncSandbox) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for sandbox in sandboxes:
            await sandbox.kill()


async def boot_id(sandbox: AsyncSandbox) -> str:
    return await sandbox.files.read(BOOT_ID)


@pytest.mark.covers("S07", "S15", "S17", "P07", "F11")
async def test_a_repl_remembers_and_its_streams_are_made_again(on_runtime: dict[str, Any]) -> None:
    lifecycle: Any = {"on_timeout": "pause", "auto_resume": True}
    sandbox = await AsyncSandbox.create(timeout=300, lifecycle=lifecycle, **on_runtime)
    async with killed_after(sandbox):
        repl = await Repl(sandbox).start()
        assert await repl.ask("known = [6]; print(known)") == "[6]"
        await sandbox.files.make_dir("/home/user/watched")
        cut: asyncio.Queue[Exception | None] = asyncio.Queue()
        await sandbox.files.watch_dir("/home/user/watched", lambda _: None, on_exit=cut.put_nowait, timeout=0)
        booted, pid = await boot_id(sandbox), repl.handle.pid

        assert await sandbox.pause() is True  # and the client asks why its streams broke, which may wake it again
        with pytest.raises(SandboxException):  # not a hang
            await asyncio.wait_for(repl.handle.wait(), WITHIN_S)
        assert await asyncio.wait_for(cut.get(), WITHIN_S) is not None

        back = await AsyncSandbox.connect(sandbox.sandbox_id)
        again = await Repl(back).reconnect(back, pid)
        assert await again.ask("known.append(7); print(*known)") == "6 7"
        events: asyncio.Queue[FilesystemEvent] = asyncio.Queue()
        watch = await back.files.watch_dir("/home/user/watched", events.put_nowait, timeout=0)
        await back.files.write("/home/user/watched/new", "x")
        assert (await asyncio.wait_for(events.get(), WITHIN_S)).name == "new"
        await watch.stop()
        await again.handle.disconnect()

        assert await back.pause() is True
        assert (await AsyncSandbox.get_info(sandbox.sandbox_id)).state is SandboxState.PAUSED
        woken = await Repl(back).reconnect(back, pid)  # by its traffic alone
        assert await woken.ask("print(sum(known))") == "13"
        assert (await back.is_running(), await boot_id(back)) == (True, booted)


@pytest.mark.covers("S01", "S19", "S20")
async def test_copies_remember_and_think_for_themselves(on_runtime: dict[str, Any], runtime: str) -> None:
    source = await AsyncSandbox.create(timeout=300, **on_runtime)
    async with killed_after(source):
        repl = await Repl(source).start()
        assert await repl.ask("known = [6]; print(known)") == "[6]"
        await source.files.write("/home/user/work", "as it was")
        snapshot = await source.create_snapshot()
        started, forked = await asyncio.gather(
            AsyncSandbox.create(snapshot.snapshot_id, timeout=120), source.fork(count=2, timeout=120)
        )
        copies = [started, *(copy for copy in forked if isinstance(copy, AsyncSandbox))]
        async with killed_after(*copies):
            assert [type(copy) for copy in forked] == [AsyncSandbox] * 2
            for number, copy in enumerate(copies):
                assert await copy.files.read("/home/user/work") == "as it was"
                same_boot = await boot_id(copy) == await boot_id(source)
                alive = repl.handle.pid in {process.pid for process in await copy.commands.list()}
                assert (same_boot, alive) == (runtime == "runsc",) * 2
                if runtime == "runsc":
                    its = await Repl(copy).reconnect(copy, repl.handle.pid)
                    assert await its.ask(f"known.append({number}); print(*known)") == f"6 {number}"
            assert await repl.ask("print(*known)") == "6", "its own stream went on"
            pages = source.list_snapshots()
            assert [each.snapshot_id for each in await pages.next_items()] == [snapshot.snapshot_id]
            assert await AsyncSandbox.delete_snapshot(snapshot.snapshot_id) is True
            assert await AsyncSandbox.delete_snapshot(snapshot.snapshot_id) is False
