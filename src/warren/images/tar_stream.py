"""Tar archives as a stream of entries, read strictly: what could be read in two ways is refused.

The reader that unpacks (Go's archive/tar) comes later and is another one. Where the two could differ about what an
archive says, this one does not guess.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)
EXTENSION_BYTES_MAX = 1024 * 1024
"""Bytes of one extended header; the longest path takes four thousand."""
HEADER_ONLY = frozenset("123456")
"""Links, devices, directories and pipes have no data, whatever their size field says (POSIX)."""
_USTAR = b"ustar\x0000"
_GNU = b"ustar  \x00"
_STAR_TRAILER = b"tar\x00"
_OCTAL = re.compile(rb"[0-7]*")
_DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]*)?")


class BadArchive(ValueError):
    """What is wrong with an archive, in words that follow a colon."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member as its header says. `kind` is the type flag; text keeps undecodable bytes as surrogates."""

    name: str
    kind: str
    size: int
    uid: int
    gid: int
    mode: int
    mtime: int
    link: str


class TarStream:
    """Fed with pieces of an archive, gives its entries; file contents are skipped."""

    def __init__(self) -> None:
        self._held = b""
        self._skip = 0
        self._extension: tuple[str, int, int, bytearray] | None = None
        """Type flag, bytes still missing, padding after them, what has come."""
        self._records: dict[str, str] = {}
        self._long: dict[str, str] = {}
        self._zeros = 0

    def feed(self, data: bytes) -> Iterator[Entry]:
        """Raises BadArchive; the stream is of no use afterwards."""
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
            elif self._extension is not None:
                at = self._collect(self._extension, data, at)
            else:
                piece = data[at : at + BLOCK - len(self._held)]
                at += len(piece)
                block = self._held + piece if self._held else piece
                if len(block) < BLOCK:
                    self._held = block
                    return
                self._held = b""
                entry = self._header(block)
                if entry is not None:
                    yield entry

    def end(self) -> None:
        """Nothing comes any more. Raises BadArchive where something should."""
        if self._held or self._skip or self._extension or self._records or self._long or self._zeros == 1:
            raise BadArchive("it ends in the middle of an entry")

    def _header(self, block: bytes) -> Entry | None:
        if block == ZERO_BLOCK:
            if self._records or self._long:
                raise BadArchive("an extended header has no entry")
            self._zeros += 1
            return None
        if self._zeros:
            raise BadArchive("there is something behind its end")
        _check_sum(block)
        kind = chr(block[156])
        if kind in "xLK":
            self._begin_extension(kind, _number(block[124:136]))
            return None
        return self._entry(block, kind)

    def _begin_extension(self, kind: str, size: int) -> None:
        if not 0 < size <= EXTENSION_BYTES_MAX:
            raise BadArchive(f"an extended header of {size} bytes")
        if self._records or (self._long and kind == "x") or kind in self._long:
            raise BadArchive("two extended headers for one entry")
        self._extension = (kind, size, -size % BLOCK, bytearray())

    def _collect(self, extension: tuple[str, int, int, bytearray], data: bytes, at: int) -> int:
        kind, missing, padding, got = extension
        piece = data[at : at + missing]
        got += piece
        missing -= len(piece)
        self._extension = (kind, missing, padding, got)
        if not missing:
            self._extension, self._skip = None, padding
            if kind == "x":
                self._records = _records(bytes(got))
            else:
                self._long[kind] = _text(bytes(got).partition(b"\0")[0])
        return at + len(piece)

    def _entry(self, block: bytes, kind: str) -> Entry:
        records, long = self._records, self._long
        self._records, self._long = {}, {}
        name = records.get("path") or long.get("L") or _short_name(block)
        if kind == "\0":  # of the time before there were types
            kind = "5" if name.endswith("/") else "0"
        size = _recorded(records, "size", block[124:136])
        if kind in HEADER_ONLY:
            size = 0
        self._skip = size + -size % BLOCK
        return Entry(
            name=name,
            kind=kind,
            size=size,
            uid=_recorded(records, "uid", block[108:116]),
            gid=_recorded(records, "gid", block[116:124]),
            mode=_number(block[100:108]),
            mtime=_recorded(records, "mtime", block[136:148]),
            link=records.get("linkpath") or long.get("K") or _field(block[157:257]),
        )


def _short_name(block: bytes) -> str:
    name = _field(block[0:100])
    if block[257:265] != _USTAR:
        return name
    if block[508:512] == _STAR_TRAILER:
        raise BadArchive("it is in the format of `star`")
    prefix = _field(block[345:500])
    return f"{prefix}/{name}" if prefix else name


def _check_sum(block: bytes) -> None:
    if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise BadArchive("a header is damaged")


def _field(raw: bytes) -> str:
    return _text(raw.partition(b"\0")[0])


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _number(raw: bytes) -> int:
    if raw[0] & 0x80:
        if raw[0] & 0x40:
            raise BadArchive("a number below zero")
        return int.from_bytes(bytes([raw[0] & 0x3F]) + raw[1:], "big")
    digits = raw.strip(b" \0").partition(b"\0")[0]
    if not _OCTAL.fullmatch(digits):
        raise BadArchive("a number that is none")
    return int(digits or b"0", 8)


def _recorded(records: Mapping[str, str], key: str, raw: bytes) -> int:
    text = records.get(key)
    if text is None:
        return _number(raw)
    if not _DECIMAL.fullmatch(text) or (key != "mtime" and not text.isdigit()):
        raise BadArchive(f"a record {key} that is no number")
    return int(text.partition(".")[0] or "0") if text[0] != "-" else 0


def _records(raw: bytes) -> dict[str, str]:
    """`<length> <key>=<value>\\n`, again and again (POSIX.1-2001, pax)."""
    found: dict[str, str] = {}
    while raw:
        digits, space, _ = raw[:12].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        line, raw = raw[:length], raw[length:]
        key, equals, value = line[len(digits) + 1 : -1].partition(b"=")
        if len(line) != length or line[-1:] != b"\n" or not equals or not key or b"\0" in key:
            raise BadArchive("an extended header is damaged")
        if key.startswith(b"GNU.sparse."):
            raise BadArchive("it holds a sparse file")
        name = _text(key)
        if name in ("path", "linkpath") and (not value or b"\0" in value or name in found):
            raise BadArchive(f"a record {name} that is no path")
        found[name] = _text(value)
    return found or {"": ""}
