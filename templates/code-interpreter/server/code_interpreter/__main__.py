"""Runs the server until SIGTERM."""

import asyncio
import logging
import signal

import aiohttp
from aiohttp import web

from code_interpreter import limits
from code_interpreter.app import Service, application
from code_interpreter.kernel import clear_leftovers
from code_interpreter.sandbox import Sandbox


async def main() -> None:
    clear_leftovers()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with aiohttp.ClientSession() as session:
        service = Service(Sandbox(session))
        # A client that goes away cancels its handler, and with it interrupts its code.
        runner = web.AppRunner(
            application(service),
            handler_cancellation=True,
            shutdown_timeout=limits.STOP_DEADLINE_S,
            access_log=None,
        )
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", limits.PORT).start()  # noqa: S104 - the gateway comes from outside
        try:
            await service.run(stop)
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    asyncio.run(main())
