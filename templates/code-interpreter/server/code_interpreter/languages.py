"""The languages, and the code by which each is told about environment variables and new random numbers."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

TYPESCRIPT_MARK = "/*typescript*/"
"""Tells the JavaScript kernel to take the types out first."""
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Language:
    """`assign` sets variables for good and removes others; `lend` and `take_back` do so for one execution.

    `reseed` gives a copy of the sandbox random numbers of its own. All are code of the language itself.
    """

    name: str
    assign: Callable[[Mapping[str, str], Iterable[str]], str]
    lend: Callable[[Mapping[str, str]], str]
    take_back: Callable[[Iterable[str]], str]
    reseed: str
    spec: str = ""
    """The folder of its kernel, where that is not called like the language."""
    warm_up: str = ""
    """What its kernel does once before anybody waits for it."""
    halt: str = ""
    """Ends what an interrupt was answered for, where that can go on nevertheless."""
    separator: str = "\n"
    loopback_only: bool = False
    """Its kernel knows no Unix sockets."""


def _text(value: str) -> str:
    """A string literal that Java and JavaScript read alike."""
    return json.dumps(value)


def _python() -> Language:
    environ = "__import__('os').environ"
    before = "__import__('sys').__dict__"
    return Language(
        name="python",
        spec="python3",  # jupyter_client takes "python" for this too
        assign=lambda envs, gone: f"{environ}.update({dict(envs)!r})\n[{environ}.pop(k, None) for k in {list(gone)!r}]",
        lend=lambda envs: (
            f"{before}['_envs_before'] = {{k: {environ}.get(k) for k in {list(envs)!r}}}\n"
            f"{environ}.update({dict(envs)!r})"
        ),
        take_back=lambda _: (
            f"[{environ}.pop(k, None) if v is None else {environ}.__setitem__(k, v) "
            f"for k, v in {before}.pop('_envs_before', {{}}).items()]"
        ),
        reseed="__import__('signal').raise_signal(__import__('signal').SIGURG)",
    )


def _javascript() -> Language:
    ours = 'globalThis[Symbol.for("code-interpreter")]'
    return Language(
        name="javascript",
        warm_up=TYPESCRIPT_MARK + "(0 as number);",
        assign=lambda envs, gone: (
            f"Object.assign(process.env, {json.dumps(dict(envs))}); "
            f"{json.dumps(list(gone))}.forEach((key) => delete process.env[key]);"
        ),
        lend=lambda envs: (
            f"(() => {{ const given = {json.dumps(dict(envs))}; {ours}.before = Object.fromEntries(Object.keys(given)"
            ".map((key) => [key, process.env[key]])); Object.assign(process.env, given); })();"
        ),
        take_back=lambda _: (
            f"(() => {{ for (const [key, value] of Object.entries({ours}.before ?? {{}})) {{ if (value === undefined) "
            f"delete process.env[key]; else process.env[key] = value; }} {ours}.before = {{}}; }})();"
        ),
        reseed='process.emit("SIGURG");',
    )


def _r() -> Language:
    def text(value: str) -> str:
        return json.dumps(value, ensure_ascii=False)  # R knows \uXXXX, but no surrogate pairs

    def names(of: Iterable[str]) -> str:
        return f"c({', '.join(map(text, of))})"

    def put(envs: Mapping[str, str]) -> str:
        return "".join(f"do.call(Sys.setenv, setNames(list({text(v)}), {text(k)})); " for k, v in envs.items())

    return Language(
        name="r",
        assign=lambda envs, gone: f"invisible({{ {put(envs)}Sys.unsetenv({names(gone)}) }})",
        lend=lambda envs: (
            f"invisible({{ options(envs.before = Sys.getenv({names(envs)}, unset = NA, names = TRUE)); {put(envs)}}})"
        ),
        take_back=lambda _: (
            'invisible(local({ before <- getOption("envs.before"); for (name in names(before)) '
            "if (is.na(before[[name]])) Sys.unsetenv(name) else "
            "do.call(Sys.setenv, setNames(list(before[[name]]), name)); options(envs.before = NULL) }))"
        ),
        reseed='invisible(set.seed(readBin("/dev/urandom", "integer", 1)))',
    )


def _java() -> Language:
    def put(envs: Mapping[str, str]) -> str:
        return "".join(f"System.setProperty({_text(k)}, {_text(v)}); " for k, v in envs.items())

    def saved(name: str) -> str:
        return _text(f"code-interpreter.before.{name}")

    def restore(name: str) -> str:
        return (
            f"if (System.getProperty({saved(name)}) == null) System.clearProperty({_text(name)}); "
            f"else System.setProperty({_text(name)}, System.clearProperty({saved(name)})); "
        )

    return Language(
        name="java",
        assign=lambda envs, gone: f"{{ {put(envs)}{''.join(f'System.clearProperty({_text(k)}); ' for k in gone)}}}",
        lend=lambda envs: (
            "{ "
            + "".join(
                f"if (System.getProperty({_text(k)}) != null) "
                f"System.setProperty({saved(k)}, System.getProperty({_text(k)})); "
                for k in envs
            )
            + f"{put(envs)}}}"
        ),
        take_back=lambda names: f"{{ {''.join(map(restore, names))}}}",
        reseed="",  # nothing there draws random numbers before a user's code does
        # JJava answers an interrupt at once and leaves a thread that does not heed it running, for good.
        halt=(
            '{ Thread mine = Thread.currentThread(); String ours = mine.getName().replaceAll("[0-9]+$", ""); '
            "for (Thread each : Thread.getAllStackTraces().keySet()) "
            "if (each != mine && each.getName().startsWith(ours)) each.stop(); }"
        ),
        loopback_only=True,
    )


def _bash() -> Language:
    def quoted(value: str) -> str:
        escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
        return f"$'{escaped}'"

    def usable(names: Iterable[str]) -> list[str]:
        return [name for name in names if _IDENTIFIER.fullmatch(name)]

    def put(envs: Mapping[str, str]) -> str:
        return "; ".join(["true", *(f"export {name}={quoted(envs[name])}" for name in usable(envs))])

    return Language(
        name="bash",
        assign=lambda envs, gone: "; ".join([put(envs), *(f"unset {name}" for name in usable(gone))]),
        lend=lambda envs: "; ".join([*(f'[ -z "${{{n}+x}}" ] || _before_{n}="${n}"' for n in usable(envs)), put(envs)]),
        take_back=lambda names: "; ".join(
            ["true"]
            + [
                f'if [ -n "${{_before_{n}+x}}" ]; then export {n}="$_before_{n}"; unset _before_{n}; else unset {n}; fi'
                for n in usable(names)
            ]
        ),
        reseed="RANDOM=$(od -An -N4 -tu4 /dev/urandom)",
        separator="; ",
    )


LANGUAGES = {language.name: language for language in (_python(), _javascript(), _r(), _java(), _bash())}
_SHORT = {"js": "javascript", "ts": "typescript"}


def named(language: str | None) -> tuple[str, str]:
    """What a caller calls a language, and the one whose kernel runs it: TypeScript runs in JavaScript's."""
    word = (language or "python").strip().lower()
    word = _SHORT.get(word, word)
    return word, "javascript" if word == "typescript" else word
