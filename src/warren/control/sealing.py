"""Values of secrets at rest: AES-256-GCM, each bound to the project, the secret and the version that it belongs to.

The first key of a keyring seals, all of them open. So a key is replaced by writing a new one above it: the server
seals everything anew when it starts, and the old line can go.
"""

import base64
import binascii
import hashlib
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from warren import durable
from warren.model.errors import BadRequest
from warren.model.secret import SealedValue, Secret

KEY_BYTES = 32
NONCE_BYTES = 12


class CannotOpen(Exception):
    """None of the keys sealed the value, or it was tampered with."""


@dataclass(frozen=True, slots=True)
class Keyring:
    keys: tuple[bytes, ...]

    @classmethod
    def parse(cls, text: str, source: str) -> "Keyring":
        """One key a line, each 64 hexadecimal digits, the one in force first. Raises BadRequest."""
        try:
            keys = tuple(bytes.fromhex(line) for line in text.split())
        except ValueError:
            keys = ()
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise BadRequest(f"cannot use {source}: write {KEY_BYTES} random bytes as hexadecimal digits, a key a line")
        return cls(keys)

    @property
    def current(self) -> str:
        return _key_id(self.keys[0])

    def seal(self, secret: Secret, value: str) -> SealedValue:
        return self._sealed(SealedValue(secret.project_id, secret.id, secret.version, "", ""), value.encode())

    def open(self, value: SealedValue) -> str:
        """Raises CannotOpen."""
        return self._opened(value).decode()

    def renewed(self, value: SealedValue) -> SealedValue:
        """The same, under the key in force. Raises CannotOpen."""
        return self._sealed(value, self._opened(value))

    def _sealed(self, place: SealedValue, content: bytes) -> SealedValue:
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = nonce + AESGCM(self.keys[0]).encrypt(nonce, content, _bound(place))
        text = base64.b64encode(sealed).decode()
        return SealedValue(place.project_id, place.secret_id, place.version, self.current, text)

    def _opened(self, value: SealedValue) -> bytes:
        for key in self.keys:
            if _key_id(key) == value.key_id:
                try:
                    sealed = base64.b64decode(value.text, validate=True)
                    return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound(value))
                except (InvalidTag, binascii.Error, ValueError) as error:
                    raise CannotOpen from error
        raise CannotOpen


def load_keyring(inline: str, file: str, made: Path) -> Keyring:
    """From the setting itself, else from the file it names, else from a file of the state folder, made on first use.

    Raises BadRequest for what holds no key or is open to others.
    """
    if inline:
        return Keyring.parse(inline, "WARREN_SECRETS_KEY")
    path = Path(file) if file else made
    if not file and not path.exists():
        durable.write_once(path, secrets.token_hex(KEY_BYTES) + "\n")
    try:
        mode, text = path.stat().st_mode, path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"cannot read the secrets key {path}: {error}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise BadRequest(f"cannot use {path} as secrets key: others may read it; set its mode to 0600")
    return Keyring.parse(text, str(path))


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"warren secrets key\0" + key).hexdigest()[:16]


def _bound(value: SealedValue) -> bytes:
    return f"{value.project_id}/{value.secret_id}/{value.version}".encode()
