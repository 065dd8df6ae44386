"""Building a template of six steps again: nothing changed, and one line at its end changed; by the unmodified SDK."""

from collections.abc import Callable
from itertools import count as numbers
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from e2b import Template

from bench.rows import Row, count
from bench.samples import Samples, milliseconds
from bench.target import Target
from bench.warren_target import WarrenTarget

DEFAULT_RUNTIME = frozenset({"runsc"})
"""Builds run under the server's own runtime, whatever their sandboxes will."""
TIMES = 5
_numbers = numbers()


def _template(folder: Path, last: str) -> Any:
    return (
        Template(file_context_path=folder)
        .from_template("base")
        .set_workdir("/home/user/app")
        .set_envs({"MODE": "bench"})
        .copy("app.py", ".")
        .run_cmd("python3 -m compileall -q .")
        .run_cmd("head -c 5M /dev/urandom > data")
        .run_cmd(last)
    )


def _rebuilt(last: Callable[[], str]) -> Callable[[Target, float], Samples]:
    def take(target: Target, scale: float) -> Samples:
        assert isinstance(target, WarrenTarget)
        options = target.server.options
        with TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "app.py").write_text("print('hello')\n")
            Template.build(_template(folder, "true"), "bench", **options)

            def once() -> float:
                template = _template(folder, last())
                return milliseconds(lambda: Template.build(template, "bench", **options))

            return Samples().measure(count(TIMES, scale), once)

    return take


ROWS = (
    Row("unchanged 6-step build", "ms", _rebuilt(lambda: "true"), {"runsc": 1000}, only=DEFAULT_RUNTIME),
    Row("6-step build, last line changed", "ms", _rebuilt(lambda: f"echo {next(_numbers)}"), {}, only=DEFAULT_RUNTIME),
)
