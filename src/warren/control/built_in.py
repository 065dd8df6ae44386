"""The description that set-up leaves beside the image of a built-in template (`template.json`)."""

import json
import re
import uuid
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, cast

from warren.model import limits
from warren.model.errors import BadRequest
from warren.model.sandbox import Resources
from warren.model.template import Template

_NAME = re.compile(r"[a-z0-9_-]{1,128}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LINE = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{limits.MAX_TEXT_FIELD}}}")
_SCRIPT = re.compile(rf"[^\x00\ud800-\udfff]{{1,{limits.MAX_TEXT_FIELD}}}")
_SIZE_MAX = 2**31 - 1


def parse(text: bytes) -> Template:
    """Ids are derived from the name: the same on every machine, and for every build of it. Raises BadRequest."""
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise BadRequest("cannot read it as JSON") from None
    if not isinstance(document, dict):
        raise BadRequest("cannot find an object in it")
    content = cast("dict[str, Any]", document)
    name, digest = _text(content, "name", _NAME), _text(content, "digest", _DIGEST)
    return Template(
        id="t" + sha256(f"built-in:{name}".encode()).hexdigest()[:19],
        project_id=None,
        names=(name, *_aliases(content)),
        build_id=str(uuid.UUID(bytes=sha256(digest.encode()).digest()[:16], version=4)),
        digest=digest,
        resources=Resources(
            cpu_count=_size(content, "cpuCount"),
            memory_mb=_size(content, "memoryMB"),
            disk_mb=_size(content, "diskMB"),
        ),
        created_at=_time(content, "created"),
        default_user=_text(content, "defaultUser", _LINE),
        default_workdir=_text(content, "defaultWorkdir", _LINE),
        start_command=_command(content, "startCommand"),
        ready_command=_command(content, "readyCommand"),
    )


def _aliases(content: dict[str, Any]) -> list[str]:
    given = content.get("aliases", [])
    if not isinstance(given, list):
        raise BadRequest("cannot use its 'aliases': give a list")
    listed = cast("list[Any]", given)
    return [_text({"aliases": one}, "aliases", _NAME) for one in listed]


def _command(content: dict[str, Any], name: str) -> str | None:
    return _text(content, name, _SCRIPT) if name in content else None


def _text(content: dict[str, Any], name: str, form: re.Pattern[str]) -> str:
    value = content.get(name)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise BadRequest(f"cannot use its {name!r}: {str(value)[:80]!r}")
    return value


def _size(content: dict[str, Any], name: str) -> int:
    value = content.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _SIZE_MAX:
        raise BadRequest(f"cannot use its {name!r}: {str(value)[:80]!r} is no size")
    return value


def _time(content: dict[str, Any], name: str) -> datetime:
    try:
        return datetime.fromisoformat(_text(content, name, _LINE)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest(f"cannot use its {name!r}: give a time of ISO 8601") from None
