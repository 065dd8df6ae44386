"""Images made of a tree of files: one child process each, which leaves nothing but the image."""

import asyncio
import os
import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

from warren.engine.oci import baker
from warren.engine.oci.blank import Blanks
from warren.engine.oci.command import MINIMAL_ENVIRONMENT
from warren.engine.oci.threads import on_thread, to_the_end
from warren.model import limits
from warren.model.errors import BuildFailed, EngineFailed, NoSpace, Timeout
from warren.model.template import TemplateImage

SCRATCH_SHARE = 1.1
"""What an ext4 of a size holds is less than that: its own tables take a few per cent."""


class Baking:
    """Works in `folder`, where nothing stays."""

    def __init__(self, folder: Path, blanks: Path) -> None:
        self._folder = folder
        self._blanks = Blanks(blanks)

    def open(self) -> None:
        """Clear what a crash left."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700, parents=True)

    async def bake(
        self, image: TemplateImage, tree: AsyncIterator[bytes], target: Path, *, epoch: int, disk_mb: int
    ) -> str:
        """See `Engine.bake`."""
        folder = self._folder / uuid.uuid4().hex
        try:
            await on_thread(self._prepare, folder, disk_mb)
            return await self._run(image, tree, folder, target, epoch)
        finally:
            await to_the_end(on_thread(shutil.rmtree, folder, ignore_errors=True))

    def _prepare(self, folder: Path, disk_mb: int) -> None:
        folder.mkdir(mode=0o700)
        self._blanks.copy(int(disk_mb * SCRATCH_SHARE), folder / "scratch")

    async def _run(
        self, image: TemplateImage, tree: AsyncIterator[bytes], folder: Path, target: Path, epoch: int
    ) -> str:
        fresh = folder / "image"
        name = uuid.UUID(bytes=sha256(image.digest.encode()).digest()[:16], version=4)
        argv = ["-m", baker.__name__, image.path, str(folder / "scratch"), str(fresh), str(epoch), str(name)]
        environment = {**MINIMAL_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)}
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            sys.executable, *argv, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )
        try:
            async with asyncio.timeout(limits.BUILD_BAKE_DEADLINE_S):
                said, words = await _fed(child, tree)
        except TimeoutError:
            raise Timeout("cannot pack the image in time") from None
        finally:
            if child.returncode is None:
                child.kill()
                await to_the_end(child.wait())
        if child.returncode != 0:
            raise _error(child.returncode or 0, words.decode(errors="replace").strip())
        fresh.rename(target)
        return said.decode().strip()


async def _fed(child: asyncio.subprocess.Process, tree: AsyncIterator[bytes]) -> tuple[bytes, bytes]:
    """Hand the tree over; a child that wants no more of it says why at its end."""
    if child.stdin is None or child.stdout is None or child.stderr is None:
        raise ValueError("the child has no pipes")
    try:
        async for chunk in tree:
            child.stdin.write(chunk)
            await child.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass
    child.stdin.close()
    said, words = await asyncio.gather(child.stdout.read(), child.stderr.read())
    await child.wait()
    return said, words


def _error(code: int, words: str) -> Exception:
    match code:
        case baker.BAD_TREE:
            return BuildFailed(f"cannot make an image of the files: {words}", "finalize")
        case baker.FULL:
            return NoSpace(f"cannot make an image of the files: {words}")
        case _:
            return EngineFailed(f"cannot make an image of the files: {words or f'the baker ended with {code}'}")
