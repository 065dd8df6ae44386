"""The steps of a template build, made ready: what each one does, and the key of what it leaves.

A key is a hash chain over all that decides the files after a step: the project, what the build starts from, and for
each step so far what it does, as whom, where and with which variables. ENV and USER change no files, so they count
where a later step uses them.
"""

import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from warren.model.build import Step, StepKind
from warren.model.errors import BuildFailed

FORM = 1
"""Of keys and layers; a change of it makes every cached layer another one's."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OCTAL_MODE = re.compile(r"[0-7]{1,4}")
_VARIABLE = re.compile(r"\\\$|\$(?:(?P<plain>\w+)|\{(?P<name>\w+)(?::(?P<rule>[-+])(?P<word>[^}]*))?\})", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the next step finds itself."""

    user: str
    workdir: str
    envs: Mapping[str, str] = field(default_factory=dict[str, str])

    def expanded(self, text: str) -> str:
        """With `$NAME`, `${NAME}`, `${NAME:-word}` and `${NAME:+word}` as a Dockerfile has them; `\\$` is a dollar."""
        known = {"PATH": DEFAULT_PATH, "HOME": self.home, **self.envs}

        def value(match: re.Match[str]) -> str:
            if match[0] == "\\$":
                return "$"
            found = known.get(match["plain"] or match["name"], "")
            if match["rule"] == "-":
                return found or match["word"]
            return (found and match["word"]) if match["rule"] == "+" else found

        return _VARIABLE.sub(value, text)

    @property
    def home(self) -> str:
        name = self.user.partition(":")[0]
        return "/root" if name in ("root", "0") else f"/home/{name}"

    def path(self, text: str) -> str:
        """Absolute, from the working directory; a slash at the end stays."""
        found = self.expanded(text)
        if found == "~" or found.startswith("~/"):
            found = self.home + found[1:]
        joined = posixpath.normpath(posixpath.join(self.workdir, found))
        joined = "/" + joined.lstrip("/")
        return f"{joined}/" if found.endswith("/") and joined != "/" else joined


@dataclass(frozen=True, slots=True)
class Run:
    command: str
    user: str


@dataclass(frozen=True, slots=True)
class Copy:
    """`target` is absolute; `owner` is never empty."""

    source: str
    target: str
    owner: str
    mode: str
    files_hash: str


@dataclass(frozen=True, slots=True)
class MakeFolder:
    path: str
    user: str


Action = Run | Copy | MakeFolder


@dataclass(frozen=True, slots=True)
class Planned:
    """A step at its number. `key` names the files after it; `stage` is where it runs, and `after` where the next does.

    `action` is None for a step that does nothing to files. `forced`: nothing from here on comes from a cache.
    """

    number: str
    title: str
    action: Action | None
    stage: Stage
    after: Stage
    key: str
    forced: bool

    @property
    def leaves_layer(self) -> bool:
        """A folder is made again in less time than a layer is kept."""
        return isinstance(self.action, Run | Copy)


def chain(*links: object) -> str:
    """The key that follows from others and from what happens then."""
    return sha256(json.dumps([FORM, *links], sort_keys=True).encode()).hexdigest()


def plan(steps: Sequence[Step], stage: Stage, key: str, *, forced: bool) -> list[Planned]:
    """Raises BuildFailed for a step that cannot be read, with its number."""
    planned: list[Planned] = []
    for number, step in enumerate(steps, 1):
        forced = forced or step.force
        try:
            action, after = _READERS[step.kind](step, stage)
        except ValueError as error:
            raise BuildFailed(f"cannot read {_title(step)}: {error}", str(number)) from None
        if action is not None:
            key = chain(key, *_ingredients(action, stage))
        planned.append(Planned(str(number), _title(step), action, stage, after, key, forced))
        stage = after
    return planned


def _ingredients(action: Action, stage: Stage) -> list[object]:
    match action:
        case Run():
            return ["RUN", action.command, action.user, stage.workdir, dict(stage.envs)]
        case Copy():
            return ["COPY", action.source, action.target, action.owner, action.mode, action.files_hash]
        case MakeFolder():
            return ["WORKDIR", action.path, action.user]


def _title(step: Step) -> str:
    return " ".join((step.kind.value, *(word for word in step.args if word)))


def _run(step: Step, stage: Stage) -> tuple[Action, Stage]:
    command, user = _padded(step, 1, 2)
    if not command.strip():
        raise ValueError("it has no command")
    return Run(command, user or stage.user), stage


def _copy(step: Step, stage: Stage) -> tuple[Action, Stage]:
    source, target, owner, mode = _padded(step, 2, 4)
    if not source or not target or step.files_hash is None:
        raise ValueError("it needs a source, a destination and its uploaded files")
    if mode and not OCTAL_MODE.fullmatch(mode):
        raise ValueError(f"the mode {mode!r} is no octal number")
    target = stage.path(target)
    return Copy(source, target, stage.expanded(owner) or stage.user, mode, step.files_hash), stage


def _env(step: Step, stage: Stage) -> tuple[None, Stage]:
    if not step.args or len(step.args) % 2:
        raise ValueError("it needs names and values in pairs")
    names, values = step.args[::2], step.args[1::2]
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a variable")
    # As in a Dockerfile: the values of one step do not see each other.
    new = {name: stage.expanded(value) for name, value in zip(names, values, strict=True)}
    return None, replace(stage, envs={**stage.envs, **new})


def _workdir(step: Step, stage: Stage) -> tuple[Action, Stage]:
    (path,) = _padded(step, 1, 1)
    if not path:
        raise ValueError("it has no path")
    path = stage.path(path).rstrip("/") or "/"
    return MakeFolder(path, stage.user), replace(stage, workdir=path)


def _user(step: Step, stage: Stage) -> tuple[None, Stage]:
    name, colon, group = stage.expanded(step.args[0] if step.args else "").partition(":")
    if not name or (colon and not group) or ":" in group:
        raise ValueError("it has no name; give user or user:group, each by name or number")
    return None, replace(stage, user=f"{name}{colon}{group}")


def _padded(step: Step, least: int, most: int) -> tuple[str, ...]:
    if not least <= len(step.args) <= most:
        raise ValueError(f"it has {len(step.args)} arguments")
    if any("\0" in word for word in step.args):
        raise ValueError("a NUL character is in it")
    return step.args + ("",) * (most - len(step.args))


_READERS: Mapping[StepKind, Callable[[Step, Stage], tuple[Action | None, Stage]]] = {
    StepKind.RUN: _run,
    StepKind.COPY: _copy,
    StepKind.ENV: _env,
    StepKind.WORKDIR: _workdir,
    StepKind.USER: _user,
}
