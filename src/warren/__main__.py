"""The `warren` program: reads the environment once and hands it down."""

import asyncio
import os
import sys

from warren.cli.app import run
from warren.cli.machine import LocalAccess, Machine
from warren.settings import Settings


def main() -> None:
    machine = Machine(environ=dict(os.environ), is_root=os.geteuid() == 0, serve=_serve, prepare=_prepare)
    sys.exit(run(sys.argv[1:], machine))


def _serve(settings: Settings) -> None:
    import uvloop

    from warren.wiring.serving import serve

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


def _prepare(settings: Settings) -> LocalAccess:
    from warren.telemetry.logs import configure
    from warren.wiring.state import find_local_key, make_local_key, opened_audit, opened_store, tls_files

    configure("warning", json=False)  # stdout is for what a shell evaluates

    async def key() -> str:
        async with opened_store(settings) as store:
            found = await find_local_key(settings, store)
            if found is not None:
                return found
            async with opened_audit(settings) as audit:
                return await make_local_key(settings, store, audit)

    return LocalAccess(api_key=asyncio.run(key()), ca_bundle=tls_files(settings).bundle)


if __name__ == "__main__":
    main()
