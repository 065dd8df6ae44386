"""The files that a build copies: chosen by a pattern, less what .dockerignore names, hashed and packed."""

import gzip
import hashlib
import os
import re
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from warren.model.errors import BadRequest

IGNORE_FILE = ".dockerignore"
PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ignored:
    """Patterns of .dockerignore, in order; a later one overrules earlier ones."""

    patterns: Sequence[tuple[bool, re.Pattern[str]]] = ()

    def __call__(self, path: str) -> bool:
        """`path` is relative to the context, with slashes."""
        parents = [path[:at] for at, letter in enumerate(path) if letter == "/"]
        found = False
        for keeps, pattern in self.patterns:
            if any(pattern.fullmatch(each) for each in (*parents, path)):
                found = not keeps
        return found


def read_ignored(context: Path) -> Ignored:
    file = context / IGNORE_FILE
    lines = file.read_text("utf-8-sig").splitlines() if file.is_file() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return Ignored([(text.startswith("!"), glob_pattern(text.lstrip("!"))) for text in patterns])


def glob_pattern(text: str) -> re.Pattern[str]:
    """`*` and `?` within a name, `**` across folders, `[…]` for one letter."""
    cleaned = os.path.normpath(text.strip().strip("/"))
    out, at = "", 0
    while at < len(cleaned):
        rest = cleaned[at:]
        if rest.startswith("**/"):
            out, at = f"{out}(?:.*/)?", at + 3
        elif rest.startswith("**"):
            out, at = f"{out}.*", at + 2
        elif found := re.match(r"\[(?:\\.|[^\]\\])+\]", rest):
            out, at = out + found[0].replace("[!", "[^", 1), at + len(found[0])
        else:
            out, at = out + {"*": "[^/]*", "?": "[^/]"}.get(rest[0], re.escape(rest[0])), at + 1
    try:
        return re.compile(out, re.DOTALL)
    except re.error:
        raise BadRequest(f"cannot read the pattern {text!r}") from None


def chosen(context: Path, source: str, ignored: Ignored) -> Sequence[str]:
    """Paths relative to `context`, sorted: what `source` matches, and all below. Raises BadRequest when it is nothing.

    Links are taken as links.
    """
    cleaned = os.path.normpath(source.lstrip("/") or ".")
    if cleaned == ".." or cleaned.startswith("../"):
        raise BadRequest(f"cannot copy {source!r}: it lies outside of {context}")
    pattern = glob_pattern(cleaned)
    found: set[str] = set()
    for path in _below(context):
        parents = [path[:at] for at, letter in enumerate(path) if letter == "/"]
        matches = cleaned == "." or any(pattern.fullmatch(each) for each in (*parents, path))
        if matches and not ignored(path):
            found.add(path)
    if not found:
        raise BadRequest(f"cannot copy {source!r}: there is no such file in {context}")
    return sorted(found)


def digest(context: Path, step: Sequence[str], paths: Sequence[str]) -> str:
    """Of what the step does and of the files: names, modes, contents; not of owners and times."""
    whole = hashlib.sha256("\0".join(step).encode())
    for path in paths:
        place = context / path
        found = place.lstat()
        whole.update(f"\0{path}\0{found.st_mode:o}\0".encode("utf-8", "surrogateescape"))
        if stat.S_ISLNK(found.st_mode):
            whole.update(os.fsencode(os.readlink(place)))
        elif stat.S_ISREG(found.st_mode):
            whole.update(f"{found.st_size}\0".encode())
            with place.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    whole.update(piece)
    return whole.hexdigest()


def packed(context: Path, paths: Sequence[str]) -> IO[bytes]:
    """An archive in a file without a name, from its beginning. The same bytes for the same files."""
    file = tempfile.TemporaryFile()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, mtime=0, filename="") as zipped:
        with tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in paths:
                archive.add(context / path, path, recursive=False, filter=_anonymous)
    file.seek(0)
    return file


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = int(member.mtime)
    return member


def _below(context: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(context):
        inner = os.path.relpath(folder, context)
        for name in (*folders, *files):
            yield name if inner == "." else f"{inner}/{name}"
