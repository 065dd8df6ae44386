"""Reads a Dockerfile into the steps of a template build. Pure: no file is opened here.

As the E2B clients do: the build begins as root in /, and where the file says nothing else it ends as `user` in
/home/user; CMD and ENTRYPOINT become the start command. Stages, mounts and remote sources are refused, not left out.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from warren.model.errors import BadRequest

WITHOUT_EFFECT = frozenset(("EXPOSE", "VOLUME", "LABEL", "MAINTAINER", "HEALTHCHECK", "STOPSIGNAL"))
"""Instructions that a template has no use for."""
FLAGS: Mapping[str, frozenset[str]] = {
    "COPY": frozenset(("chown", "chmod")),
    "ADD": frozenset(("chown", "chmod")),
    "FROM": frozenset(("platform",)),
}
_VARIABLE = re.compile(r"\\\$|\$(?:(?P<plain>\w+)|\{(?P<name>\w+)(?:(?P<how>:?[-+])(?P<word>[^}]*))?\})")
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://|git@", re.IGNORECASE)
_HEREDOC = re.compile(r"<<-?[\"']?\w")
_MODE = re.compile(r"0?[0-7]{3,4}")
_COMMENT_OR_BLANK = re.compile(r"\s*(#|$)")
_DIRECTIVE = re.compile(r"#\s*escape\s*=", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DockerStep:
    """One step of the build as the server takes it. `line` is where it comes from; `source` what a COPY takes."""

    kind: str
    args: tuple[str, ...]
    line: int
    source: str | None = None


@dataclass
class Dockerfile:
    image: str = ""
    steps: list[DockerStep] = field(default_factory=list[DockerStep])
    start_command: str | None = None


def parse_dockerfile(text: str, arguments: Mapping[str, str]) -> Dockerfile:
    """`arguments` are values for ARG. Raises BadRequest that names the line."""
    return _Reader(arguments).read(text)


class _Reader:
    def __init__(self, arguments: Mapping[str, str]) -> None:
        self._arguments = arguments
        self._known: dict[str, str] = {}
        """Of ARG and ENV so far."""
        self._file = Dockerfile()
        self._starts: dict[str, list[str] | str] = {}
        """CMD and ENTRYPOINT, the last of each."""

    def read(self, text: str) -> Dockerfile:
        for line, name, rest in _instructions(text):
            if not self._file.image and name not in ("ARG", "FROM"):
                raise _bad(line, f"{name} before FROM")
            options, rest = _options(line, name, rest)
            self._take(line, name, rest, options)
        if not self._file.image:
            raise BadRequest("cannot build from this Dockerfile: it has no FROM")
        kinds = {step.kind for step in self._file.steps[2:]}
        end = max((step.line for step in self._file.steps), default=0)
        if "USER" not in kinds:
            self._step("USER", "user", line=end)
        if "WORKDIR" not in kinds:
            self._step("WORKDIR", "/home/user", line=end)
        self._file.start_command = self._start()
        return self._file

    def _take(self, line: int, name: str, rest: str, options: Mapping[str, str]) -> None:
        match name:
            case "FROM":
                self._from(line, rest)
            case "RUN":
                words = _json_words(rest)
                self._step("RUN", rest if words is None else shlex.join(words), line=line)
            case "COPY" | "ADD":
                self._copy(line, name, rest, options)
            case "ENV":
                self._env(line, rest)
            case "ARG":
                self._arg(line, rest)
            case "USER" | "WORKDIR":
                self._step(name, self._word(line, name, rest), line=line)
            case "CMD" | "ENTRYPOINT":
                self._starts[name] = _json_words(rest) or rest
            case _:
                if name not in WITHOUT_EFFECT:
                    raise _bad(line, f"{name} is not supported")

    def _from(self, line: int, rest: str) -> None:
        words = self._words(line, rest)
        if self._file.image:
            raise _bad(line, "a second FROM; build the stages apart")
        if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
            raise _bad(line, "FROM takes the name of an image")
        self._file.image = words[0]
        self._step("USER", "root", line=line)
        self._step("WORKDIR", "/", line=line)

    def _copy(self, line: int, name: str, rest: str, options: Mapping[str, str]) -> None:
        words = _json_words(rest) or self._words(line, rest)
        if len(words) < 2:
            raise _bad(line, f"{name} takes sources and a destination")
        *sources, target = words
        mode = options.get("chmod", "")
        if mode and not _MODE.fullmatch(mode):
            raise _bad(line, f"--chmod={mode} is no octal mode")
        if len(sources) > 1 and not target.endswith("/"):
            raise _bad(line, f"{name} of several sources needs a destination that ends in /")
        for source in sources:
            if _REMOTE.match(source):
                raise _bad(line, f"{name} takes files of this machine only; fetch {source} with RUN")
            owner = self._expanded(options.get("chown", ""))
            self._step("COPY", source, target, owner, mode.rjust(4, "0") if mode else "", line=line, source=source)

    def _env(self, line: int, rest: str) -> None:
        first = rest.split(None, 1)
        if len(first) == 2 and "=" not in first[0]:  # the older form: one name, and all that follows
            pairs = [(first[0], self._expanded(first[1]))]
        else:
            pairs = [_pair(line, word) for word in self._words(line, rest)]
        self._known.update(pairs)
        self._step("ENV", *(text for pair in pairs for text in pair), line=line)

    def _arg(self, line: int, rest: str) -> None:
        for word in self._words(line, rest):
            name, equals, default = word.partition("=")
            if name in self._arguments or equals:
                self._known[name] = self._arguments.get(name, default)
                if self._file.image:
                    self._step("ENV", name, self._known[name], line=line)

    def _start(self) -> str | None:
        entry, command = self._starts.get("ENTRYPOINT"), self._starts.get("CMD")
        if isinstance(entry, str) or not command:
            return _shell_text(entry) if entry else None  # an entry point in shell form takes no arguments
        return " ".join([*([_shell_text(entry)] if entry else []), _shell_text(command)])

    def _step(self, kind: str, *args: str, line: int, source: str | None = None) -> None:
        self._file.steps.append(DockerStep(kind, args, line, source))

    def _word(self, line: int, name: str, text: str) -> str:
        words = self._words(line, text)
        if len(words) != 1:
            raise _bad(line, f"{name} takes one word")
        return words[0]

    def _words(self, line: int, text: str) -> list[str]:
        try:
            return shlex.split(self._expanded(text))
        except ValueError as error:
            raise _bad(line, f"{error}".lower()) from None

    def _expanded(self, text: str) -> str:
        """What is not known here stays, for the server: the image's own environment is not known either."""

        def value(match: re.Match[str]) -> str:
            name = match["plain"] or match["name"]
            known = self._known.get(name) if name else None
            how = match["how"] or ""
            is_set = known is not None and (known != "" or not how.startswith(":"))
            if how.endswith("+"):
                return match["word"] if is_set else ""
            if how.endswith("-") and not is_set:
                return cast("str", match["word"])
            return match[0] if known is None else known

        return _VARIABLE.sub(value, text)


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, name in capitals, and the rest with continued lines joined."""
    begun, pieces = 0, list[str]()
    for number, line in enumerate([*text.lstrip("\ufeff").splitlines(), ""], 1):
        if _DIRECTIVE.match(line) and not begun and number == 1:
            raise _bad(number, "another escape character is not supported")
        if line.lstrip().startswith("#") or (pieces and not line.strip() and number <= len(text.splitlines())):
            continue
        if not pieces and _COMMENT_OR_BLANK.match(line):
            continue
        begun = begun if pieces else number
        continued = line.rstrip().endswith("\\") and number <= len(text.splitlines())
        pieces.append(line.rstrip()[:-1] if continued else line)
        if continued:
            continue
        name, _, rest = "".join(pieces).strip().partition(" ")
        pieces = []
        if name.upper() in ("RUN", "COPY", "ADD") and _HEREDOC.search(rest):
            raise _bad(begun, "here-documents are not supported; put the text into a file and COPY it")
        yield begun, name.upper(), rest.strip()


def _options(line: int, name: str, rest: str) -> tuple[Mapping[str, str], str]:
    found: dict[str, str] = {}
    while rest.startswith("--"):
        word, _, rest = rest.partition(" ")
        option, _, value = word[2:].partition("=")
        if option not in FLAGS.get(name, ()):
            raise _bad(line, f"--{option} of {name} is not supported")
        found[option], rest = value, rest.strip()
    return found, rest


def _json_words(text: str) -> list[str] | None:
    """A JSON array of words; None for the shell form."""
    try:
        words = json.loads(text) if text.startswith("[") else None
    except ValueError:
        return None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in cast("list[object]", words)):
        return None
    return cast("list[str]", words)


def _shell_text(command: Sequence[str] | str) -> str:
    return command if isinstance(command, str) else shlex.join(command)


def _pair(line: int, word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise _bad(line, f"{word!r} is not of the form NAME=VALUE")
    return name, value


def _bad(line: int, why: str) -> BadRequest:
    return BadRequest(f"cannot build from this Dockerfile: line {line}: {why}")
