"""The guest's control routes, which nobody outside may reach (wire contract 1.7). Pure."""

import posixpath
import re
from urllib.parse import unquote

HIDDEN = frozenset({"init", "freeze", "unfreeze", "collapse", "fsfreeze", "fsthaw", "upgrade", "warren"})
_DECODINGS_MAX = 4
"""A path that still changes after so many percent-decodings is nobody's honest path."""


def is_hidden(raw_path: str) -> bool:
    """Whether any reading of this path of port 49983 is a control route.

    Wider than the guest's own reading on purpose: encoded twice, in capitals or with parameters, it is refused too.
    """
    path = raw_path.partition("?")[0].partition("#")[0]
    for _ in range(_DECODINGS_MAX):
        if _first_segment(path) in HIDDEN:
            return True
        decoded = unquote(path, errors="replace")
        if decoded == path:
            return False
        path = decoded
    return True


def _first_segment(path: str) -> str:
    segments = (segment.partition(";")[0].strip().rstrip("\0") for segment in path.replace("\\", "/").split("/"))
    clean = posixpath.normpath("/" + "/".join(segments))
    return re.split(r"[/?#]", clean.lstrip("/"), maxsplit=1)[0].lower()
