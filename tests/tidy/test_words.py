"""Names say what a thing knows, and one word means one thing."""

import re

from tests.tidy import tree

VAGUE = {
    "utils": "the noun it is about",
    "util": "the noun it is about",
    "helpers": "the noun it is about",
    "helper": "the noun it is about",
    "common": "the noun it is about",
    "misc": "the noun it is about",
    "manager": "what it does: pool, registry, supervision",
}
WIRE_WORDS = {
    r"\benvd\b": "guestd",
    r"\bteam_?id\b": "project",
}
"""E2B's words for our things: they stay at the edge."""
EDGE = ("src/warren/api/", "src/warren/gateway/", "src/warren/guest/", "src/warren/cli/")


def test_no_module_has_a_vague_name() -> None:
    vague = [
        f"{path}: name it for {VAGUE[part]}"
        for path in tree.files()
        for part in (*path.parts[:-1], path.stem)
        if part in VAGUE
    ]
    assert not vague, vague


def test_the_wire_s_words_stay_at_the_edge() -> None:
    strays = [
        f"{path}:{number} says {found[0]}, say {ours}"
        for path in tree.python("src/warren/")
        if not str(path).startswith(EDGE)
        for number, line in enumerate((tree.text(path) or "").splitlines(), 1)
        for pattern, ours in WIRE_WORDS.items()
        if (found := re.search(pattern, line, re.IGNORECASE))
    ]
    assert not strays, strays


def test_the_daemon_in_a_sandbox_is_never_an_agent() -> None:
    named = [
        f"{path}:{number} {line.strip()}"
        for path in [*tree.python("src/warren/"), *tree.go()]
        for number, line in enumerate((tree.text(path) or "").splitlines(), 1)
        if re.match(r"\s*(class|def|async def|func|type)\b[^(:]*agent", line, re.IGNORECASE)
    ]
    assert not named, f"an agent is the AI that uses a sandbox; the daemon is the guest: {named}"
