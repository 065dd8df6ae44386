"""A pytest plugin (`-p tests.security.board.recorder --board FILE`): what became of every test that shows a row."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--board", type=Path, help="append a JSON line for each result")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    board: Path | None = item.config.getoption("--board")
    if board is not None and (report.when == "call" or not report.passed):
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        for mark in item.iter_markers("threat"):
            runtime = mark.kwargs.get("runtime", parameters.get("runtime"))
            line = {"rows": mark.args, "runtime": runtime, "test": item.nodeid, "outcome": report.outcome}
            with board.open("a") as out:
                out.write(json.dumps(line) + "\n")
    return report
