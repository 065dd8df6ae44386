"""Keeps secrets out of logs, whoever logged them, and sandboxes' text from drawing on the operator's terminal."""

import re
from collections.abc import Mapping
from typing import cast

HIDDEN = "[hidden]"

_DEPTH = 6
"""Levels of nested values that are looked into; what lies deeper is hidden whole."""

_SECRET_NAMES = re.compile(
    r"(?:^|[_\-.])(?:token|secret|password|passwd|authorization|cookie|signature|credential|seed)s?$"
    r"|(?:^|[_\-.])(?:api|access|local|private|signing)[_\-.]?keys?$"
    r"|^(?:key|envs?|envvars|env_vars|environ|environment)$",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"(?P<api_key>\be2b_)[0-9a-f]{16,}"
    r"|(?P<signature>\bsignature=)[^&\s\"']+"
    r"|(?P<header>\b(?:x-access-token|x-api-key|authorization|e2b-traffic-access-token)['\"]?\s*[:=]\s*['\"]?)"
    r"(?:(?:bearer|basic)\s+)?[^\s'\",]+",
    re.IGNORECASE,
)


def clean(value: object, depth: int = _DEPTH) -> object:
    """The value without secrets: those under a telling name, and those that look like one of ours inside text."""
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth == 0:
        return HIDDEN
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return {str(name): HIDDEN if names_secret(str(name)) else clean(inner, depth - 1) for name, inner in pairs}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(inner, depth - 1) for inner in cast("list[object]", value)]
    return clean_text(str(value))


def names_secret(name: str) -> bool:
    return _SECRET_NAMES.search(name) is not None


def clean_text(text: str) -> str:
    return _SECRET_TEXT.sub(lambda found: next(filter(None, found.groups())) + HIDDEN, text)


def printable(text: str) -> str:
    """One line without control characters: they would move the cursor or fake a second log line."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape", "replace").decode("ascii")
