import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from warren.model.errors import BadRequest
from warren.telemetry.logs import configure
from warren.telemetry.redaction import HIDDEN, clean, names_secret, printable

KEY = "e2b_" + "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(**options: object) -> tuple[io.StringIO, structlog.stdlib.BoundLogger]:
    out = io.StringIO()
    configure(str(options.get("level", "info")), bool(options.get("json", True)), out)
    return out, structlog.get_logger("warren.test")


def test_a_json_line_has_the_event_its_fields_level_and_time() -> None:
    out, log = lines()
    log.info("started", sandbox="i1", seconds=0.5)
    event = json.loads(out.getvalue())
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "started", "sandbox": "i1", "seconds": 0.5, "level": "info", "logger": "warren.test"
    }  # fmt: skip


def test_libraries_log_the_same_way_and_as_redacted() -> None:
    out, _ = lines()
    logging.getLogger("uvicorn.error").warning("refused %s", KEY)
    logging.getLogger("alembic.runtime").info("noise")
    event = json.loads(out.getvalue())
    assert (event["event"], event["level"]) == (f"refused e2b_{HIDDEN}", "warning")


def test_a_level_silences_what_is_below_it() -> None:
    out, log = lines(level="WARNING")
    log.info("quiet")
    assert out.getvalue() == ""


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(BadRequest, match=r"cannot use the log level 'loud'.*debug, info"):
        configure("loud", False)


def test_secrets_are_hidden_by_name_and_by_look() -> None:
    out, log = lines()
    log.info(
        f"GET /files?path=/a&signature=v1_abc&x=1 with X-Access-Token: {'f' * 40}",
        access_token="t1",
        envs={"A": "t2"},
        request={"headers": [{"X-API-KEY": "t3"}], "body": (KEY, {"password": "t4"})},
        error=ValueError(f"bad {KEY}"),
        key_id="visible",
    )
    text = out.getvalue()
    for secret in ("t1", "t2", "t3", "t4", "v1_abc", KEY, "f" * 40):
        assert secret not in text
    assert "visible" in text
    assert "x=1" in text


def test_secrets_are_hidden_in_tracebacks() -> None:
    out, log = lines()
    try:
        raise ValueError(KEY)
    except ValueError:
        log.exception("failed")
    assert KEY not in out.getvalue()
    assert "ValueError" in json.loads(out.getvalue())["exception"]


def test_a_sandbox_cannot_fake_a_line_or_move_the_cursor() -> None:
    out, log = lines(json=False)
    log.info("guest said\nevil", message="\x1b[2J\r\nlevel=error \u202e")
    text = out.getvalue()
    assert text.count("\n") == 1
    assert not {"\x1b", "\r", "\u202e"} & set(text)


@pytest.mark.parametrize(
    "name",
    ["token", "envd_access_token", "X-API-KEY", "apiKey", "secrets", "envs", "envVars", "Authorization", "cookie"],
)
def test_these_names_mean_secrets(name: str) -> None:
    assert names_secret(name)


@pytest.mark.parametrize(
    "name", ["key_id", "keyboard", "monkey", "event", "environment_count", "tokens_used", "sandbox"]
)
def test_these_names_do_not(name: str) -> None:
    assert not names_secret(name)


def test_what_is_nested_too_deeply_is_hidden() -> None:
    deep: object = "x"
    for _ in range(50):
        deep = [deep]
    assert HIDDEN in str(clean(deep))


@given(st.text())
def test_printable_text_is_one_printable_line(text: str) -> None:
    assert printable(text).isprintable()
