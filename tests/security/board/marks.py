"""Which tests show which rows: read from the marks in the source, so that nothing has to run for it."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.security.board.rows import RUNTIMES

TESTS = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Proof:
    test: str
    runtimes: tuple[str, ...]


def proofs(mark: str) -> dict[str, list[Proof]]:
    """row -> tests that carry `pytest.mark.<mark>(row, …)`; of a whole module where `pytestmark` says so."""
    found: dict[str, list[Proof]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        source = path.read_text()
        if f"pytest.mark.{mark}(" not in source:
            continue
        for name, tree in _marked_parts(path.stem, ast.parse(source)):
            for rows, runtimes in _calls(tree, mark):
                for row in rows:
                    found[row].append(Proof(name, runtimes))
    return dict(found)


def _marked_parts(module: str, tree: ast.Module) -> Iterator[tuple[str, list[ast.expr]]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{module}::{node.name}", node.decorator_list
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            yield module, [node.value]


def _calls(expressions: list[ast.expr], mark: str) -> Iterator[tuple[list[str], tuple[str, ...]]]:
    for expression in expressions:
        for node in ast.walk(expression):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == f"pytest.mark.{mark}":
                named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
                runtimes = (named["runtime"],) if "runtime" in named else RUNTIMES
                yield [ast.literal_eval(argument) for argument in node.args], runtimes
