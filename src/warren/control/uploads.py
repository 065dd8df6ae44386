"""The archives that COPY steps unpack: taken in over signed links, kept by hash in a folder of each template.

The bytes are hostile and are nothing but bytes here: the build unpacks them inside its sandbox.
"""

import asyncio
import contextlib
import errno
import hmac
import os
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from warren.contracts.clock import Clock
from warren.control.tokens import Tokens
from warren.model import limits
from warren.model.errors import BadRequest, Busy, Forbidden, LimitReached, NoSpace, Timeout

_TEMPLATE_ID = re.compile(r"[a-z0-9]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")
_PARTIAL = "."
"""Names that begin so are uploads under way."""
_WRITE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class UploadLink:
    """Who may upload which archive until when: all that a link says, and what signs it."""

    template_id: str
    files_hash: str
    project_id: str
    key_id: str
    expires: int

    @property
    def text(self) -> str:
        return f"{self.template_id}:{self.files_hash}:{self.project_id}:{self.key_id}:{self.expires}"


class Uploads:
    def __init__(self, *, folder: Path, tokens: Tokens, clock: Clock) -> None:
        self._folder, self._tokens, self._clock = folder, tokens, clock
        self._under_way = 0

    def path(self, template_id: str, files_hash: str) -> Path:
        """Where the archive lies once it is here. Raises BadRequest for what cannot be either's name."""
        if not _TEMPLATE_ID.fullmatch(template_id) or not _HASH.fullmatch(files_hash):
            raise BadRequest("Invalid files hash")
        return self._folder / template_id / files_hash

    def has(self, template_id: str, files_hash: str) -> bool:
        """Whether it is here; then it counts as used now. Raises BadRequest."""
        try:
            os.utime(self.path(template_id, files_hash))
        except FileNotFoundError:
            return False
        return True

    def link(self, template_id: str, files_hash: str, project_id: str, key_id: str) -> Mapping[str, str]:
        """The query of a link for one upload."""
        expires = int(self._clock.now().timestamp()) + limits.UPLOAD_LINK_S
        link = UploadLink(template_id, files_hash, project_id, key_id, expires)
        return {
            "project": project_id,
            "key": key_id,
            "expires": str(expires),
            "signature": self._tokens.upload(link.text),
        }

    def check(self, link: UploadLink, signature: str) -> None:
        """Raises Forbidden."""
        if not hmac.compare_digest(self._tokens.upload(link.text).encode(), signature.encode()):
            raise Forbidden("cannot take this upload: its link was not made here; ask for another")
        if self._clock.now() > datetime.fromtimestamp(link.expires, UTC):
            raise Forbidden("cannot take this upload: its link has expired; ask for another")

    async def receive(self, link: UploadLink, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Take in an archive of `size` bytes, in place of one with the same hash; it is there whole or not at all.

        Raises BadRequest when fewer or more bytes come, Timeout when none come, Busy, LimitReached, NoSpace.
        """
        if self._under_way >= limits.UPLOADS_AT_ONCE:
            raise Busy("cannot take another upload now: too many are under way; try again in a moment")
        target = self.path(link.template_id, link.files_hash)
        partial = target.with_name(f"{_PARTIAL}{uuid.uuid4().hex}")
        self._under_way += 1
        try:
            await asyncio.to_thread(self._make_room, target, size)
            with await asyncio.to_thread(open, partial, "xb", opener=_private) as file:
                await _fill(file, size, chunks)
                await asyncio.to_thread(os.fsync, file.fileno())
            await asyncio.to_thread(_put, partial, target)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace from error
            raise
        finally:
            self._under_way -= 1
            partial.unlink(missing_ok=True)

    async def forget(self, template_id: str) -> None:
        """Delete all of a template's; what comes later by a link that is still good goes with the sweep."""
        await asyncio.to_thread(shutil.rmtree, self._folder / template_id, ignore_errors=True)

    async def recover(self) -> None:
        """Clear what the server before this one left half-taken."""
        await asyncio.to_thread(self._clear_partials)

    async def sweep(self) -> None:
        """Delete what nobody used for long."""
        used_before = (self._clock.now() - timedelta(seconds=limits.UPLOAD_KEPT_S)).timestamp()
        await asyncio.to_thread(self._sweep, used_before)

    def _clear_partials(self) -> None:
        for partial in self._folder.glob(f"*/{_PARTIAL}*"):
            partial.unlink()

    def _make_room(self, target: Path, size: int) -> None:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if shutil.disk_usage(target.parent).free < size + limits.CHECKPOINT_SPARE_BYTES:
            raise NoSpace
        held = sum(entry.stat().st_size for entry in os.scandir(target.parent) if entry.name != target.name)
        if held + size > limits.TEMPLATE_UPLOAD_BYTES:
            raise LimitReached(
                f"cannot keep this upload: those of the template would take more than {limits.TEMPLATE_UPLOAD_BYTES} "
                "bytes; delete the template, or wait until old ones are forgotten"
            )

    def _sweep(self, used_before: float) -> None:
        for path in self._folder.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < used_before:
                    path.unlink()
        for folder in self._folder.glob("*"):
            with contextlib.suppress(OSError):
                folder.rmdir()  # only an empty one goes


async def _fill(file: BinaryIO, size: int, chunks: AsyncIterator[bytes]) -> None:
    seen, held = 0, bytearray()
    while True:
        try:
            async with asyncio.timeout(limits.UPLOAD_SILENCE_S):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise Timeout(f"cannot take this upload: nothing came for {limits.UPLOAD_SILENCE_S:.0f} s") from None
        seen += len(chunk or b"")
        if seen > size or (chunk is None and seen < size):
            raise BadRequest(f"cannot take this upload: Content-Length says {size} bytes, {seen} came")
        held += chunk or b""
        if held and (chunk is None or len(held) >= _WRITE_BYTES):
            await asyncio.to_thread(file.write, bytes(held))
            held.clear()
        if chunk is None:
            await asyncio.to_thread(file.flush)
            return


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _put(partial: Path, target: Path) -> None:
    partial.rename(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
