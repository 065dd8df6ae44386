"""The ordinary server, in which every call across a contract is a place to crash at. `crashing_server.py PLAN`.

As long as there is no file PLAN it is a server like any other. The file holds `record`, and then each call is noted in
PLAN.trace; or `<before|after> <point> <number>`: the process kills itself around that call, counted from when the
plan appeared.
"""

import asyncio
import inspect
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from warren.control import uploads
from warren.control.build_layers import Layers
from warren.control.templates import TemplateFiles
from warren.engine.oci import baking, firewall, shelf
from warren.engine.oci.crun import Crun
from warren.engine.oci.record import Record
from warren.engine.oci.runsc import Runsc
from warren.engine.oci.shelf import Shelf
from warren.images import shelf as images_shelf
from warren.images.source import OciImages, _Cell  # pyright: ignore[reportPrivateUsage]
from warren.settings import load
from warren.wiring import serving, state

RECORD = "record"
BACKGROUND = frozenset(
    {"engine.usage", "engine.death", "guest.logs", "guest.check", "store.add_metrics", "store.overdue"}
    | {"store.prune_gone", "store.touch_key", "store.close", "guest.close", "store.sandboxes", "store.sandbox"}
    | {"store.count_running", "store.key_owner", "store.projects", "store.project", "store.logs", "store.beat"}
    | {"engine.room", "engine.shortage", "engine.memory_excess", "engine.denials", "engine.keeps_memory"}
    | {"store.servers", "store.home", "store.key_holder", "store.find_template", "store.sleeper", "store.snapshot"}
    | {"store.build", "store.build_lines", "store.add_build_lines", "store.unfinished_builds", "store.template_entry"}
    | {"store.ladders"}
    | {"store.snapshots", "store.named_snapshot", "store.snapshot_usage", "store.referenced_checkpoints"}
)
"""What goes on all the time, or changes nothing: a crash there is one between its neighbours."""


class Plan:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = ""
        self._counts: Counter[str] = Counter()

    def passes(self, when: str, point: str) -> None:
        if point in BACKGROUND:
            return
        text = self._path.read_text() if self._path.exists() else ""
        if text != self._text:
            self._text, self._counts = text, Counter()
        if text == RECORD:
            self._note(when, point)
        elif text and text.split()[:2] == [when, point]:
            self._counts[point] += 1
            if self._counts[point] == int(text.split()[2]):
                os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, when: str, point: str) -> None:
        if when == "before":
            self._counts[point] += 1
            with self._path.with_suffix(".trace").open("a") as trace:
                trace.write(f"{point} {self._counts[point]}\n")


class Spied:
    """Passes everything on to `inner`, and tells the plan of each call."""

    def __init__(self, inner: object, name: str, plan: Plan) -> None:
        self._inner, self._name, self._plan = inner, name, plan

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._inner, attribute)
        return watched(value, f"{self._name}.{attribute}", self._plan) if inspect.ismethod(value) else value


def watched(function: Callable[..., Any], point: str, plan: Plan) -> Callable[..., Any]:
    async def awaited(result: Awaitable[Any]) -> Any:
        outcome = await result
        plan.passes("after", point)
        return outcome

    def call(*arguments: Any, **named: Any) -> Any:
        plan.passes("before", point)
        result = function(*arguments, **named)
        if inspect.isawaitable(result):
            return awaited(result)
        plan.passes("after", point)
        return result

    return call


def install(plan: Plan) -> None:
    """At the contracts, and inside the engine at what it does to the machine."""
    for where, name, point in (
        (serving, "OciEngine", "engine"),
        (serving, "GuestdClient", "guest"),
        (serving, "GuestWorkshop", "workshop"),
        (state, "SqlStore", "store"),
    ):
        original = getattr(where, name)
        replacement = lambda *given, original=original, point=point: Spied(original(*given), point, plan)  # noqa: E731
        setattr(where, name, replacement)
    steps = [(firewall, "apply", "rules"), (Record, "write", "record")]
    steps += [(shelf, "rename", "shelf"), (shelf, "erase", "shelf"), (Shelf, "publish", "shelf")]
    steps += [(_Cell, "report", "cell"), (OciImages, "_keep", "images"), (images_shelf.Shelf, "put", "images")]
    steps += [(TemplateFiles, "adopt", "templates"), (Layers, "put", "layers"), (baking, "_fed", "baking")]
    steps += [(uploads, "_put", "uploads")]
    steps += [(kind, verb, "runtime") for kind in (Runsc, Crun) for verb in ("start", "delete", "halt", "save", "wake")]
    for owner, method, point in steps:
        setattr(owner, method, watched(getattr(owner, method), f"{point}.{method}", plan))


def main() -> None:
    install(Plan(Path(sys.argv[1])))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serving.serve(load(os.environ)))


if __name__ == "__main__":
    main()
