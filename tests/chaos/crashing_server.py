"""The ordinary server, in which every call across a contract is a place to crash at. `crashing_server.py PLAN`.

As long as there is no file PLAN it is a server like any other. The file holds `record`, and then each call is noted in
PLAN.trace; or `<before|after> <point> <number>`: the process kills itself around that call, counted from when the
plan appeared.

A command of a runtime is such a call too, and `during` it there is a place more: `during <point> <number> <ms>`. The
process kills itself so many milliseconds after the command was begun. The command is stopped then, so that it has not
ended when the next server looks around, and PLAN.orphan has its pid.
"""

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import time
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
VERBS = frozenset({"run", "restore", "wait", "delete", "pause", "resume", "fscheckpoint", "checkpoint"})
"""Of a runtime's command line; what is done to a sandbox by another process than the server."""
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
        if point not in BACKGROUND and self._is_met(when, point):
            os.kill(os.getpid(), signal.SIGKILL)

    def begun(self, command: int, point: str) -> None:
        if self._is_met("during", point):
            time.sleep(int(self._text.split()[3]) / 1000)
            os.kill(command, signal.SIGSTOP)
            self._path.with_suffix(".orphan").write_text(str(command))
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_met(self, when: str, point: str) -> bool:
        text = self._path.read_text() if self._path.exists() else ""
        if text != self._text:
            self._text, self._counts = text, Counter()
        if text == RECORD:
            self._note(when, point)
        elif text and text.split()[:2] == [when, point]:
            self._counts[point] += 1
            return self._counts[point] == int(text.split()[2])
        return False

    def _note(self, when: str, point: str) -> None:
        if when in ("before", "during"):
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


def spied_popen(plan: Plan) -> type[subprocess.Popen[Any]]:
    class Spied(subprocess.Popen[Any]):
        def __init__(self, args: Any, *others: Any, **named: Any) -> None:
            words = [str(word) for word in args]
            runtime = next((name for name in (Runsc.name, Crun.name) if name in map(_last_part, words)), None)
            verb = next((word for word in words if word in VERBS), None)
            # In a session of its own: the kernel ends what is stopped in the session of one that dies.
            super().__init__(args, *others, **{**named, "start_new_session": bool(runtime)})
            if runtime and verb:
                plan.begun(self.pid, f"{runtime}.{verb}")

    return Spied


def _last_part(word: str) -> str:
    return word.rpartition("/")[2]


def install(plan: Plan) -> None:
    """At the contracts, and inside the engine at what it does to the machine."""
    subprocess.Popen = spied_popen(plan)  # type: ignore[misc]
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
