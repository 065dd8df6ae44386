"""Images from registries and archives, each fetched once: the ImageSource of the product."""

import asyncio
import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path
from typing import Any, cast

from warren.contracts.building import FetchedImage, Say
from warren.images.cell import UID_BASE
from warren.images.ecr import LoginRefused, ecr_login
from warren.images.job import ARCHIVE
from warren.images.manifest import ARCHITECTURES
from warren.images.reference import parse_reference
from warren.images.registries import Registries, credentials
from warren.images.relay import Relay, Upstream
from warren.images.shelf import OFFER_HOST, Shelf
from warren.model import limits
from warren.model.build import BASE_STEP, AwsKeys, LogLevel, RegistryLogin
from warren.model.errors import BuildFailed, EngineFailed, NoSpace
from warren.turns import Turns

SPARE_BYTES = 256 * 1024**2
"""Bytes of the state folder's disk that no image takes: running sandboxes write there, and the database."""
WANTED_BYTES = limits.IMAGE_COMPRESSED_BYTES + 2 * limits.IMAGE_BYTES + 1024**3
"""Bytes of a cell's disk, its own tables and layers that umoci wants unpacked among them; it takes up what is written
to it."""
LEAST_BYTES = 64 * 1024**2
"""Bytes that a cell's disk must have to be worth a try."""
NO_SPACE_WORDS = "no space left on device"
CELL_PREFIX = "cell-"
MINIMAL_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


@dataclass(frozen=True, slots=True)
class _Order:
    """What the cell is asked for. `archive` is a file of the host that it gets a copy of."""

    source: str
    by_content: str = ""
    credentials: str = "{}"
    archive: str = ""


class OciImages:
    """`folder` below the state folder, for itself alone. `adopt(path, digest)` takes a finished image in;
    `use(digest)` says whether it is still there, and counts as its use."""

    def __init__(
        self,
        folder: Path,
        registries: Registries,
        *,
        adopt: Callable[[Path, str], None],
        use: Callable[[str], bool],
    ) -> None:
        self._folder, self._registries = folder, registries
        self._adopt, self._use = adopt, use
        self._shelf = Shelf(folder)
        self._places = asyncio.Semaphore(limits.IMAGE_FETCHES)
        self._turns = Turns()

    def open(self) -> None:
        """Clear what a crash left. For the server alone: others may be at work beside it."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._shelf.open()
        for left in self._folder.glob(f"{CELL_PREFIX}*"):
            shutil.rmtree(left)

    async def fetch(self, reference: str, login: RegistryLogin | AwsKeys | None, say: Say) -> FetchedImage:
        if reference.startswith(f"{OFFER_HOST}/"):
            return self._offered(reference)
        name = parse_reference(reference)
        if isinstance(login, AwsKeys):
            login = await self._exchanged(str(name), login)
        order = _Order(f"docker://{name}", f"docker://{name.name}", credentials(name, login))
        return await self._bring(str(name), order, say)

    async def _exchanged(self, name: str, keys: AwsKeys) -> RegistryLogin:
        try:
            return await ecr_login(keys, datetime.now(UTC), self._registries)
        except LoginRefused as error:
            raise _failed(name, f"no login for its registry: {error}") from None

    def _offered(self, reference: str) -> FetchedImage:
        found = self._shelf.offered(reference)
        if found is None or not self._use(found.digest):
            raise _failed(reference, "it was imported for one build, which is over; import it again")
        return found

    async def take_in(self, archive: Path, say: Say) -> FetchedImage:
        """Bring an OCI archive, or one of `docker save`, that lies on this machine. Raises as `fetch` does."""
        order = _Order(ARCHIVE, archive=str(archive))
        return await self._bring(archive.name, order, say)

    def forget(self, digests: frozenset[str]) -> None:
        self._shelf.forget(digests)

    async def _bring(self, name: str, order: _Order, say: Say) -> FetchedImage:
        say(LogLevel.INFO, f"image {name}", BASE_STEP)
        try:
            async with self._places, asyncio.timeout(limits.IMAGE_DEADLINE_S):
                return await self._in_cell(name, order, say)
        except TimeoutError:
            raise _failed(name, f"it took longer than {limits.IMAGE_DEADLINE_S:g} s (IMAGE_DEADLINE_S)") from None

    async def _in_cell(self, name: str, order: _Order, say: Say) -> FetchedImage:
        room = shutil.disk_usage(self._folder).free - SPARE_BYTES
        if room < LEAST_BYTES:
            raise NoSpace
        size = min(room, WANTED_BYTES)
        folder = Path(tempfile.mkdtemp(prefix=CELL_PREFIX, dir=self._folder))
        relay = Relay(self._registries.trusted, Upstream(proxy) if (proxy := self._registries.proxy) else None)
        try:
            image = folder / "rootfs.erofs"
            image.touch(mode=0o600)
            os.chown(image, UID_BASE, UID_BASE)
            async with self._cell(folder, image, order, size, relay) as cell:
                async with asyncio.timeout(limits.IMAGE_RESOLVE_DEADLINE_S):
                    manifest = str((await self._hear(cell, name, relay, say, "digest"))["digest"])
                async with self._turns.of(manifest):
                    known = self._shelf.find(manifest)
                    if known is not None and self._use(known.digest):
                        say(LogLevel.INFO, "the image is here already", BASE_STEP)
                        return known
                    cell.go_on()
                    await self._hear(cell, name, relay, say, "fetched")
                    await relay.close()
                    config = (await self._hear(cell, name, relay, say, "config"))["config"]
                    return await asyncio.to_thread(self._keep, manifest, image, config)
        finally:
            await relay.close()
            shutil.rmtree(folder)

    @asynccontextmanager
    async def _cell(self, folder: Path, image: Path, order: _Order, size: int, relay: Relay) -> AsyncGenerator["_Cell"]:
        ours, theirs = socket.socketpair()
        target = os.open(image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        forwards = self._registries.local
        with ours, theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-I", "-m", "warren.images.cell", str(theirs.fileno()), str(target),
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), target), start_new_session=True, env=MINIMAL_ENVIRONMENT,
                    limit=limits.IMAGE_REPORT_BYTES,
                )  # fmt: skip
            finally:
                os.close(target)
            theirs.close()
            try:
                cell = _Cell(process, is_short=size < WANTED_BYTES)
                cell.order(folder, order, self._registries.skopeo_configuration(), size, forwards)
                await _serve(relay, ours, forwards)
                yield cell
            finally:
                await cell_ended(process)

    async def _hear(self, cell: "_Cell", name: str, relay: Relay, say: Say, wanted: str) -> Mapping[str, Any]:
        """Pass on what the cell says, until it says what is waited for."""
        while True:
            report = await cell.report()
            if wanted in report:
                return report
            if "say" in report:
                say(LogLevel.INFO, str(report["say"]), BASE_STEP)
            elif "error" in report:
                words = str(report["error"])
                if cell.is_short and (report.get("errno") == errno.ENOSPC or NO_SPACE_WORDS in words):
                    raise NoSpace
                raise _failed(name, "; ".join([*relay.refusals[:1], words]))
            else:
                why = report.get("broken", "its cell ended; is the machine out of memory?")
                raise EngineFailed(f"cannot work on image {name}: {why}")

    def _keep(self, manifest: str, image: Path, config: Mapping[str, Any]) -> FetchedImage:
        os.chown(image, 0, 0)
        image.chmod(0o644)
        with image.open("rb") as file:
            digest = f"sha256:{file_digest(file, 'sha256').hexdigest()}"
            os.fsync(file.fileno())
        self._adopt(image, digest)
        envs = cast("Mapping[str, str]", config["envs"])
        fetched = FetchedImage(digest, str(config["user"]), str(config["workdir"]), envs)
        self._shelf.put(manifest, fetched)
        return fetched


class _Cell:
    """`is_short`: its disk is smaller than an image may need, as the machine's has no more."""

    def __init__(self, process: asyncio.subprocess.Process, *, is_short: bool) -> None:
        self.is_short = is_short
        assert process.stdin is not None and process.stdout is not None  # noqa: S101  # as they were asked for
        self._in, self._out = process.stdin, process.stdout
        self._lines = 0

    def order(self, folder: Path, order: _Order, registries: str, size: int, forwards: object) -> None:
        said = {
            "folder": str(folder), "source": order.source, "by_content": order.by_content,
            "credentials": order.credentials,
            "archive": order.archive, "registries": registries, "bytes": size,
            "memory": limits.IMAGE_MEMORY_MB * 1024**2,
            "forwards": forwards, "architecture": ARCHITECTURES.get(os.uname().machine, os.uname().machine),
        }  # fmt: skip
        self._in.write(json.dumps(said).encode() + b"\n")

    def go_on(self) -> None:
        self._in.write(b"\n")

    async def report(self) -> Mapping[str, Any]:
        """One line of what the cell says; {} when it says nothing more, or nonsense."""
        self._lines += 1
        with contextlib.suppress(ValueError):
            line = await self._out.readline()
            said: object = json.loads(line) if line and self._lines < limits.IMAGE_REPORT_LINES else {}
            return cast("dict[str, Any]", said) if isinstance(said, dict) else {}
        return {}


async def cell_ended(process: asyncio.subprocess.Process) -> None:
    """Kill the cell with all that is in it, and wait until it is gone: the kernel then has taken back its mounts."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def _serve(relay: Relay, link: socket.socket, forwards: Any) -> None:
    """Take over the cell's listeners."""
    link.setblocking(False)
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(link.fileno(), lambda: ready.done() or ready.set_result(None))
    try:
        async with asyncio.timeout(limits.IMAGE_RESOLVE_DEADLINE_S):
            await ready
    finally:
        loop.remove_reader(link.fileno())
    _, fds, _, _ = socket.recv_fds(link, 1, len(forwards) + 1)
    listeners = [socket.socket(fileno=fd) for fd in fds]
    for listener, target in zip(listeners, forwards, strict=False):
        await relay.forward(listener, target)
    for listener in listeners[len(forwards) :]:
        await relay.proxy(listener)


def _failed(name: str, why: str) -> BuildFailed:
    return BuildFailed(f"cannot use image {name}: {why}", BASE_STEP)
