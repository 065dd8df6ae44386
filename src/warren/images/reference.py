"""Names of images in registries, read strictly: nothing that a tool could take for an option or another transport."""

import re
from dataclasses import dataclass

from warren.model import limits
from warren.model.errors import BadRequest

DEFAULT_HOST = "docker.io"
DEFAULT_TAG = "latest"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?"
_WORD = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_HOST_FORM = re.compile(_HOST)
_REFERENCE = re.compile(
    rf"(?P<path>{_WORD}(?:/{_WORD})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """`tag` is "" where a digest alone counts."""

    host: str
    path: str
    tag: str
    digest: str

    @property
    def name(self) -> str:
        return f"{self.host}/{self.path}"

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"

    def at(self, digest: str) -> str:
        """The same image by its content."""
        return f"{self.name}@{digest}"


def is_host(text: str) -> bool:
    """Whether this names a registry: a host, with or without a port."""
    return _HOST_FORM.fullmatch(text) is not None


def parse_reference(text: str) -> Reference:
    """Read `[host[:port]/]path[:tag][@digest]` as `docker pull` does. Raises BadRequest."""
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, remainder = first, rest
    else:
        host, remainder = DEFAULT_HOST, text
    match = _REFERENCE.fullmatch(remainder)
    if match is None or len(text) > limits.IMAGE_REFERENCE_MAX or not is_host(host):
        raise BadRequest(f"cannot read image {text[:200]!r}: give it as [host[:port]/]name[:tag] or name@sha256:…")
    path, digest = match["path"], match["digest"] or ""
    if host == DEFAULT_HOST and "/" not in path:
        path = f"library/{path}"
    return Reference(host, path, "" if digest else match["tag"] or DEFAULT_TAG, digest)
