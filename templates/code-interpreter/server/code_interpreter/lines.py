"""From a kernel's messages to the lines of an answer (wire contract 4.2, stream lines). No I/O."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from code_interpreter import limits

FIELDS = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "text/latex": "latex",
    "application/json": "json",
    "application/javascript": "javascript",
    "e2b/data": "data",
    "e2b/chart": "chart",
}
Line = dict[str, Any]
KEEPALIVE: Line = {"type": "keepalive"}
END: Line = {"type": "end_of_execution"}


def encoded(line: Line) -> bytes:
    """One line: no character beyond ASCII, of which some are line breaks to some clients."""
    content = json.dumps(line, ensure_ascii=True).encode("ascii")
    if len(content) > limits.LINE_MAX:
        size, most = len(content) // 2**20, limits.LINE_MAX // 2**20
        told = f"cannot send a {line['type']} of {size} MiB: the most is {most}; write it to a file and download that\n"
        return encoded(output("stderr", told))
    return content + b"\n"


def error(name: str, value: str, traceback: str = "") -> Line:
    return {"type": "error", "name": name, "value": value, "traceback": traceback or f"{name}: {value}"}


def output(name: str, text: str) -> Line:
    return {"type": name, "text": text, "timestamp": datetime.now(UTC).isoformat()}


class Reading:
    """Turns the messages of one execution into lines, in the order in which they come."""

    def __init__(self, language: str) -> None:
        self._language = language
        self._has_error = False
        self._held: Line | None = None

    def lines_of(self, message: Mapping[str, Any]) -> Iterator[Line]:
        """The lines that one message becomes: none for what clients are not told. The last message is the reply."""
        kind, content = message["msg_type"], message["content"]
        if kind == "execute_reply":
            yield from self._end(content)
            return
        found = list(self._told(kind, content))
        if found:
            yield from self._released()
        if kind == "display_data" and self._language == "r" and "image/png" not in content["data"]:
            # R shows the value of an expression like anything else; the last one is the result.
            self._held = found.pop()
        yield from found

    def _told(self, kind: str, content: Mapping[str, Any]) -> Iterator[Line]:
        if kind == "stream":
            for piece in self._pieces(content["text"]):
                yield output(content["name"], piece)
        elif kind in ("execute_result", "display_data"):
            yield result(content["data"], is_main=kind == "execute_result")
        elif kind == "error":
            self._has_error = True
            yield error(content["ename"] or "Error", content["evalue"], "\n".join(content["traceback"]))
        elif kind == "execute_input":
            yield {"type": "number_of_executions", "execution_count": content["execution_count"]}

    def _pieces(self, text: str) -> Iterator[str]:
        if (
            self._language == "java"
        ):  # whose `println` is two words to the reference's clients: the text, the line's end
            text, end = (text[:-1], "\n") if text.endswith("\n") and text != "\n" else (text, "")
            yield from filter(None, (text, end))
            return
        for start in range(0, len(text), limits.TEXT_MAX):
            yield text[start : start + limits.TEXT_MAX]

    def _released(self) -> Iterator[Line]:
        if self._held is not None:
            yield self._held
            self._held = None

    def _end(self, reply: Mapping[str, Any]) -> Iterator[Line]:
        if self._held is not None:
            self._held["is_main_result"] = True
        yield from self._released()
        if reply["status"] != "ok" and not self._has_error:
            yield error(reply.get("ename") or "ExecutionAborted", reply.get("evalue") or "the execution was aborted")


def result(data: Mapping[str, Any], *, is_main: bool) -> Line:
    line: Line = {"type": "result", "is_main_result": is_main}
    extra = {mime: value for mime, value in data.items() if mime not in FIELDS}
    line |= {FIELDS[mime]: value for mime, value in data.items() if mime in FIELDS}
    if isinstance(line.get("text"), str):
        line["text"] = unquoted(line["text"])
    return line | ({"extra": extra} if extra else {})


def unquoted(text: str) -> str:
    """A string's text is the string, not how a program would write it."""
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text
