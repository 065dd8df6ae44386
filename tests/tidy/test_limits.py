"""A limit that nobody looks at protects nobody."""

import ast

from tests.tidy import tree

LIMITS = "src/warren/model/limits.py"
OBVIOUS = ("DEFAULT_", "MIN_", "PROJECT_MAX_", "MAX_ENV_ENTRIES", "MAX_METADATA_ENTRIES", "LOG_PAGE_", "METRICS_PERIOD")
"""The name says it all."""


def named() -> list[str]:
    source = (tree.ROOT / LIMITS).read_text()
    return [
        target.id
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]


def test_every_named_limit_is_used() -> None:
    used = {
        node.attr
        for path in tree.python("src/warren/")
        if str(path) != LIMITS
        for node in ast.walk(ast.parse((tree.ROOT / path).read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "limits"
    }
    idle = sorted(set(named()) - used)
    assert not idle, f"enforce it or take it away: {idle}"


def test_the_page_names_only_limits_that_exist() -> None:
    page = (tree.ROOT / "docs/reference/limits.md").read_text()
    words = {word for part in page.split("`")[1::2] for word in part.replace(",", " ").split()}
    shouted = {word for word in words if word.isupper() and not word.startswith("WARREN_")}
    known = set(named())
    unknown = [
        word for word in shouted if not any(name == word or name.startswith(word.partition("*")[0]) for name in known)
    ]
    assert not unknown, f"the page speaks of limits that are gone: {sorted(unknown)}"
