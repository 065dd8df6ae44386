"""What a kernel says, as the lines that clients read (wire contract 4.2)."""

import json
from typing import Any

import pytest

from code_interpreter import limits
from code_interpreter.lines import Reading, encoded, output, result, unquoted


def message(kind: str, **content: Any) -> dict[str, Any]:
    return {"msg_type": kind, "content": content}


def reply(status: str, **content: Any) -> dict[str, Any]:
    return message("execute_reply", status=status, **content)


def kinds(reading: Reading, *messages: dict[str, Any]) -> list[tuple[str, Any]]:
    lines = [line for each in messages for line in reading.lines_of(each)]
    return [(line["type"], line.get("text", line.get("name"))) for line in lines]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("'a'", "a"), ('"a"', "a"), ("'a\"", "'a\""), ("'", "'"), ("''", ""), ("a", "a"), ("''a''", "'a'")],
)
def test_a_string_loses_one_pair_of_quotes(text: str, shown: str) -> None:
    assert unquoted(text) == shown


def test_every_form_of_a_value_has_its_field_and_the_others_go_to_extra() -> None:
    data = {"text/plain": "x", "image/png": "iVBO", "e2b/data": {"a": [1]}, "e2b/chart": {"type": "pie"}, "x/y": "z"}
    line = result(data, is_main=True)
    assert line == {
        "type": "result", "is_main_result": True, "text": "x", "png": "iVBO", "data": {"a": [1]},
        "chart": {"type": "pie"}, "extra": {"x/y": "z"},
    }  # fmt: skip
    assert "extra" not in result({"text/plain": "x"}, is_main=False)


def test_a_line_is_ascii_and_one_line_to_every_client() -> None:
    line = encoded(output("stdout", "é\u2028\u2029\x85\r\n\U0001f600"))
    assert line.isascii()
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line)["text"] == "é\u2028\u2029\x85\r\n\U0001f600"


def test_a_result_too_large_is_named_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINE_MAX", 1024)
    line = json.loads(encoded(result({"text/plain": "x" * 2000}, is_main=True)))
    assert line["type"] == "stderr"
    assert line["text"].startswith("cannot send a result of 0 MiB")


def test_long_output_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TEXT_MAX", 4)
    found = kinds(Reading("python"), message("stream", name="stdout", text="abcdefghi"))
    assert found == [("stdout", "abcd"), ("stdout", "efgh"), ("stdout", "i")]


def test_println_of_java_is_the_text_and_then_the_line_s_end() -> None:
    said = message("stream", name="stdout", text="a\nb\n")
    assert kinds(Reading("java"), said) == [("stdout", "a\nb"), ("stdout", "\n")]
    assert kinds(Reading("java"), message("stream", name="stdout", text="\n")) == [("stdout", "\n")]


def test_the_last_value_that_r_shows_is_the_result() -> None:
    reading = Reading("r")
    values = [message("display_data", data={"text/plain": f"[1] {n}"}) for n in (1, 2)]
    lines = [line for each in (*values, reply("ok")) for line in reading.lines_of(each)]
    assert [(line["text"], line["is_main_result"]) for line in lines] == [("[1] 1", False), ("[1] 2", True)]


def test_a_value_that_r_shows_before_other_output_is_none() -> None:
    reading = Reading("r")
    said = [message("display_data", data={"text/plain": "[1] 1"}), message("stream", name="stdout", text="x\n")]
    lines = [line for each in (*said, reply("ok")) for line in reading.lines_of(each)]
    assert [(line["type"], line.get("is_main_result")) for line in lines] == [("result", False), ("stdout", None)]


def test_an_error_is_said_once() -> None:
    failed = message("error", ename="ValueError", evalue="no", traceback=["a", "b"])
    assert kinds(Reading("python"), failed, reply("error", ename="ValueError", evalue="no")) == [
        ("error", "ValueError")
    ]


def test_an_execution_that_ended_without_a_word_says_why() -> None:
    assert kinds(Reading("bash"), reply("abort")) == [("error", "ExecutionAborted")]
    assert kinds(Reading("python"), reply("error", ename="OSError", evalue="x")) == [("error", "OSError")]


def test_what_clients_are_not_told() -> None:
    said = [message("status", execution_state="busy"), message("clear_output"), message("update_display_data", data={})]
    assert kinds(Reading("python"), *said, reply("ok")) == []
