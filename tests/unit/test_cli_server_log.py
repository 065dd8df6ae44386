import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from warren.cli.app import run
from warren.cli.machine import LocalAccess, Machine
from warren.cli.server_log import LogFile
from warren.model import limits
from warren.model.errors import BadRequest
from warren.settings import Settings
from warren.telemetry.logs import configure
from warren.telemetry.request_id import bound

Warren = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


@pytest.fixture
def warren(file: Path, capsys: pytest.CaptureFixture[str]) -> Warren:
    def nothing(_: Settings) -> None:
        raise AssertionError

    def no_access(_: Settings) -> LocalAccess:
        raise AssertionError

    machine = Machine({"WARREN_LOG_FILE": str(file)}, is_root=True, serve=nothing, prepare=no_access)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments, machine)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def write(file: Path) -> None:
    configure("debug", False, io.StringIO(), file)
    log = structlog.get_logger("warren.test")
    with bound("r1"):
        log.info("created", sandbox="i1")
    log.warning("odd\x1b[2J", sandbox="i2")
    try:
        raise ValueError("deep down")
    except ValueError:
        log.exception("failed")


def test_the_server_s_log_is_shown_and_filtered(warren: Warren, file: Path) -> None:
    write(file)
    assert file.stat().st_mode & 0o777 == 0o600
    code, text, _ = warren("logs")
    assert (code == 0 and "created sandbox=i1 request=r1" in text) or "created request=r1 sandbox=i1" in text
    assert "\x1b" not in text and "ValueError: deep down" in text

    def events(*filters: str) -> list[str]:
        return [
            json.loads(line)["event"].split("\x1b")[0] for line in warren("logs", "--json", *filters)[1].splitlines()
        ]

    assert events() == ["created", "odd", "failed"]
    assert events("--level", "warning") == ["odd", "failed"]
    assert events("--request", "r1") == ["created"]
    assert events("--sandbox", "i2") == ["odd"]
    assert events("--search", "deep") == ["failed"]
    assert events("--since", "2999-01-01") == []
    assert events("-n", "1") == ["failed"]


def test_each_entry_is_given_once_also_over_rotation(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_FILE_BYTES", 500)
    configure("info", False, io.StringIO(), file)
    log = structlog.get_logger("warren.test")
    reader, seen = LogFile(file), list[int]()
    for number in range(3):
        log.info("one", number=number)
    seen += [entry["number"] for entry in reader.old()]
    for number in range(3, 6):
        log.info("one", number=number)
        seen += [entry["number"] for entry in reader.fresh()]
    assert seen == list(range(6))
    assert [entry["number"] for entry in LogFile(file).old()] == list(range(6))
    with file.open("a") as opened:
        opened.write('{"half": ')
    assert list(reader.fresh()) == []


def test_where_the_log_is_instead_is_told(capsys: pytest.CaptureFixture[str], warren: Warren) -> None:
    assert "has the server been started" in warren("logs")[2]
    machine = Machine({}, is_root=True, serve=lambda _: None, prepare=lambda _: LocalAccess("", Path()))
    assert run(["logs"], machine) == 1
    assert "WARREN_LOG_FILE" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="WARREN_LOG_FILE"):
        configure("info", False, io.StringIO(), tmp_path / "no" / "log")
