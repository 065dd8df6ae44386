"""Checkpoints at rest, encrypted: AES-256-GCM, chunk by chunk, each checkpoint with a key of its own.

The server's key only seals those keys, so a checkpoint is gone for good with its manifest. A sealed file is a row of
frames: the chunk's number, the length of what follows, the chunk encrypted. The number is also the nonce, used once,
for each key encrypts each chunk of each file once. A last frame says how many there were.
"""

import os
import secrets
import stat
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from warren.engine.oci.sparse import CHUNK_BYTES, data_chunks, read_chunk
from warren.model.errors import BadRequest

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
FRAME = struct.Struct(">QI")
END = 2**64 - 1
WORKERS = max(2, os.cpu_count() or 2)
BATCH = 8
"""Chunks in work at once: what a file costs of memory while it is sealed or opened, in MiB."""


class Damaged(Exception):
    """What was read is not what was sealed with this key."""


@dataclass(frozen=True, slots=True)
class Key:
    """The server's, from `WARREN_CHECKPOINT_KEY_FILE`; it only ever seals the keys of checkpoints."""

    secret: bytes

    @classmethod
    def load(cls, path: Path) -> "Key":
        """Raises BadRequest for a file that is not 32 bytes of root's alone."""
        try:
            mode, content = path.stat().st_mode, path.read_bytes()
        except OSError as error:
            raise BadRequest(f"cannot read the checkpoint key {path}: {error.strerror}") from None
        if len(content) != KEY_BYTES:
            raise BadRequest(f"cannot use {path} as checkpoint key: give {KEY_BYTES} random bytes, no text")
        if stat.S_IMODE(mode) & 0o077:
            raise BadRequest(f"cannot use {path} as checkpoint key: others may read it; set its mode to 0600")
        return cls(content)

    def wrap(self, key: bytes, checkpoint_id: str) -> str:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return (nonce + AESGCM(self.secret).encrypt(nonce, key, checkpoint_id.encode())).hex()

    def unwrap(self, wrapped: str, checkpoint_id: str) -> bytes:
        """Raises Damaged when another key wrapped it."""
        try:
            sealed = bytes.fromhex(wrapped)
            return AESGCM(self.secret).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], checkpoint_id.encode())
        except (InvalidTag, ValueError) as error:
            raise Damaged("another key sealed it") from error


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


class FileCipher:
    """For file `number` of a checkpoint, whose name and length are bound into every frame."""

    def __init__(self, key: bytes, number: int, name: str, length: int) -> None:
        self._aead = AESGCM(key)
        self._number = number
        self._bound = f"{name}\0{length}".encode()
        self._length = length

    def seal(self, source: int, target: int) -> None:
        frames = 0
        with ThreadPoolExecutor(WORKERS, "seal") as workers:
            for batch in _batches(data_chunks(source)):
                for frame in workers.map(partial(self._sealed, source), batch):
                    frames += bool(frame)
                    _write(target, frame)
        _write(target, self._frame(END, frames.to_bytes(8, "big")))

    def unseal(self, source: int, target: int) -> None:
        """Write what was sealed to an empty file, holes and all. Raises Damaged."""
        os.ftruncate(target, self._length)
        frames = 0
        while True:
            index, content = self._next(source)
            if index == END:
                break
            frames += 1
            os.pwrite(target, content, index * CHUNK_BYTES)
        if content != frames.to_bytes(8, "big") or os.read(source, 1):
            raise Damaged("it has too few or too many frames")

    def _sealed(self, source: int, index: int) -> bytes:
        content = read_chunk(source, index)
        return self._frame(index, content) if content else b""

    def _frame(self, index: int, content: bytes) -> bytes:
        encrypted = self._aead.encrypt(self._nonce(index), content, self._bound)
        return FRAME.pack(index, len(encrypted)) + encrypted

    def _next(self, source: int) -> tuple[int, bytes]:
        index, length = FRAME.unpack(_read(source, FRAME.size))
        if length > CHUNK_BYTES + TAG_BYTES:
            raise Damaged("a frame is too long")
        try:
            return index, self._aead.decrypt(self._nonce(index), _read(source, length), self._bound)
        except InvalidTag as error:
            raise Damaged("a frame is not as it was written") from error

    def _nonce(self, index: int) -> bytes:
        return self._number.to_bytes(4, "big") + index.to_bytes(8, "big")


def _batches(numbers: Iterator[int]) -> Iterator[list[int]]:
    while batch := list(islice(numbers, BATCH)):
        yield batch


def _write(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _read(fd: int, length: int) -> bytes:
    content = b""
    while len(content) < length:
        more = os.read(fd, length - len(content))
        if not more:
            raise Damaged("it ends too early")
        content += more
    return content
