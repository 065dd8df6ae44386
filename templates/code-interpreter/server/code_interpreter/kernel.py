"""One Jupyter kernel: started, spoken to, interrupted, restarted."""

import asyncio
import logging
import os
import queue
import signal
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

from code_interpreter import limits
from code_interpreter.languages import Language

log = logging.getLogger(__name__)

KERNELS = "/opt/code-interpreter/kernels"
RUNTIME = Path("/run/code-interpreter")
"""Connection files and sockets; for root alone."""


class KernelFailed(Exception):
    """cannot start or speak to a kernel"""


class KernelDied(Exception):
    """the kernel's process has ended"""


class Kernel:
    def __init__(self, language: Language, cwd: str) -> None:
        self._language, self._cwd = language, cwd
        self._manager: Any = None  # AsyncKernelManager, whose methods say nothing of their types
        self._client: AsyncKernelClient | None = None
        self._in_use: AsyncKernelClient | None = None
        """By an execution, which closes it when it has been stopped meanwhile: not under somebody who waits for it."""

    async def start(self) -> None:
        """Start the process, or start it anew. Raises KernelFailed."""
        await self.stop()
        name = RUNTIME / uuid.uuid4().hex[:12]
        how: dict[str, Any] = {"connection_file": f"{name}.json"}
        if not self._language.loopback_only:
            how |= {"transport": "ipc", "ip": str(name)}
        manager: Any = AsyncKernelManager(
            kernel_name=self._language.spec or self._language.name,
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[KERNELS], ensure_native_kernel=False),
            **how,
        )
        self._manager = manager
        try:
            await manager.start_kernel(cwd=self._cwd, env=dict(os.environ))
            client = manager.client()
            client.start_channels(stdin=False, hb=False)
            client.iopub_channel.socket.set(zmq.RCVHWM, limits.MESSAGES_MAX)
            self._client = client
            await client.wait_for_ready(timeout=limits.START_DEADLINE_S)
            async with asyncio.timeout(limits.START_DEADLINE_S):
                async for _ in self.execute(self._language.warm_up, aside=True):
                    pass
        except Exception as error:
            await self.stop()
            raise KernelFailed(f"cannot start the {self._language.name} kernel: {error}") from error

    async def stop(self) -> None:
        """End the process. An execution that is under way raises KernelDied."""
        manager, client = self._manager, self._client
        self._manager = self._client = None
        if client is not None and client is not self._in_use:
            client.stop_channels()
        if manager is not None:
            await manager.shutdown_kernel(now=True)
            manager.cleanup_connection_file()

    async def is_alive(self) -> bool:
        return self._manager is not None and await self._manager.is_alive()

    async def interrupt(self) -> None:
        if self._manager is not None:
            await self._manager.interrupt_kernel()

    async def execute(self, code: str, *, aside: bool = False) -> AsyncGenerator[dict[str, Any] | None]:
        """What the kernel says, to the end of the execution; None after each moment without a word.

        `aside`: neither counted nor remembered. Raises KernelDied, KernelFailed.
        """
        client = self._client
        if client is None:
            raise KernelDied
        self._in_use = client
        try:
            async for message in self._messages(client, code, aside):
                yield message
        finally:
            self._in_use = None
            if client is not self._client:
                client.stop_channels()

    async def _messages(
        self, client: AsyncKernelClient, code: str, aside: bool
    ) -> AsyncGenerator[dict[str, Any] | None]:
        request = client.execute(code, silent=aside, store_history=not aside, allow_stdin=False, stop_on_error=False)
        silent = 0
        while True:
            try:
                message = await client.get_iopub_msg(timeout=limits.LOOK_S)
            except queue.Empty:
                if client is not self._client or not await self.is_alive():
                    raise KernelDied from None
                silent += 1
                if silent * limits.LOOK_S >= limits.LAST_WORDS_S and await client.shell_channel.msg_ready():
                    break  # it has ended, and its last words were lost
                yield None
                continue
            silent = 0
            if message["parent_header"].get("msg_id") != request:
                continue  # of an execution that was given up
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
            yield message
        yield await self._reply(client, request)

    async def _reply(self, client: AsyncKernelClient, request: str) -> dict[str, Any]:
        while True:
            try:
                reply = await client.get_shell_msg(timeout=limits.REPLY_DEADLINE_S)
            except queue.Empty:
                raise KernelDied if not await self.is_alive() else KernelFailed("cannot hear how it ended") from None
            if reply["parent_header"].get("msg_id") == request:
                return reply


def clear_leftovers() -> None:
    """End the kernels of a server that was killed: nobody speaks to them any more."""
    RUNTIME.mkdir(mode=0o700, exist_ok=True)
    marked = str(RUNTIME).encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and entry.name != str(os.getpid()):
            try:
                if any(word.startswith(marked) for word in (entry / "cmdline").read_bytes().split(b"\0")):
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                pass  # it has ended by itself
    for file in RUNTIME.iterdir():
        file.unlink(missing_ok=True)
