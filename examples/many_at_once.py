"""A fan-out: ten sandboxes at once on the fast tier, one piece of work in each.

eval "$(.venv/bin/warren env)" && .venv/bin/python examples/many_at_once.py
"""

import asyncio

from e2b import AsyncSandbox

PIECES = 10


async def work(piece: int) -> str:
    async with await AsyncSandbox.create(timeout=60, api_headers={"X-Warren-Runtime": "crun"}) as sandbox:
        done = await sandbox.commands.run(f"python3 -c 'print({piece} ** 20)'")
        return done.stdout.strip()


async def main() -> None:
    for piece, answer in enumerate(await asyncio.gather(*(work(piece) for piece in range(PIECES)))):
        print(f"{piece} ** 20 = {answer}")


asyncio.run(main())
