"""A pytest plugin (`-p tests.security.board.recorder --board FILE`): what became of every test that shows a row."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest

MARKS = ("threat", "switched_off")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--board", type=Path, help="append a JSON line for each result")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    board: Path | None = item.config.getoption("--board")
    if board is not None and (report.when == "call" or not report.passed):
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        lines = [
            {
                "mark": mark.name,
                "rows": mark.args,
                "runtime": mark.kwargs.get("runtime", parameters.get("runtime")),
                "test": item.nodeid,
                "outcome": report.outcome,
                "why": report.longrepr[2] if isinstance(report.longrepr, tuple) else "",
            }
            for name in MARKS
            for mark in item.iter_markers(name)
        ]
        with board.open("a") as out:
            out.writelines(json.dumps(line) + "\n" for line in lines)
    return report
