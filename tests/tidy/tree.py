"""The files of this checkout, as git would carry them, and the functions in them."""

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST_SECONDS = 20


@dataclass(frozen=True)
class Function:
    path: Path
    name: str
    line: int
    lines: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.name} has {self.lines} lines"


@cache
def files() -> tuple[Path, ...]:
    """Relative paths of all files that are tracked or would be."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        capture_output=True,
        timeout=LIST_SECONDS,
        check=True,
    )
    names = {name for name in listed.stdout.decode().split("\0") if name}
    return tuple(sorted(Path(name) for name in names if (ROOT / name).is_file() and not (ROOT / name).is_symlink()))


@cache
def text(path: Path) -> str | None:
    """None for a file that is no text."""
    try:
        return (ROOT / path).read_text()
    except UnicodeDecodeError:
        return None


def lines(path: Path) -> int:
    return len((text(path) or "").splitlines())


def python(below: str = "") -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and str(path).startswith(below)]


def go() -> list[Path]:
    """Go that people write; what protoc writes is not theirs to shorten."""
    return [path for path in files() if path.suffix == ".go" and "gen" not in path.parts]


def python_functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(text(path) or "")):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Function(path, node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1)


def go_functions(path: Path) -> Iterator[Function]:
    """By gofmt's layout: a function starts with `func` and ends with `}`, both in the first column."""
    started: tuple[int, str] | None = None
    for number, line in enumerate((text(path) or "").splitlines(), 1):
        if found := re.match(r"func (?:\([^)]*\) )?(\w+)", line):
            started = (number, found[1])
        if started and line == "}":
            yield Function(path, started[1], started[0], number - started[0] + 1)
            started = None
