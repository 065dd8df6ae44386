"""The output of a command as lines of a log. Pure; whoever writes it may be hostile."""

from warren.contracts.guest import OnLine
from warren.model import limits


class Lines:
    """Hands over each line once it is whole, at most `limits.BUILD_LINE_MAX` characters of it."""

    def __init__(self, on_line: OnLine) -> None:
        self._on_line = on_line
        self._begun = bytearray()
        self._left = limits.BUILD_STEP_LINES

    def feed(self, data: bytes) -> None:
        *whole, rest = data.replace(b"\r\n", b"\n").split(b"\n")
        for line in whole:
            self._begun += line[: limits.BUILD_LINE_MAX]
            self._hand_over()
        self._begun += rest[: limits.BUILD_LINE_MAX]
        del self._begun[limits.BUILD_LINE_MAX :]

    def close(self) -> None:
        if self._begun:
            self._hand_over()

    def _hand_over(self) -> None:
        text = bytes(self._begun).rpartition(b"\r")[2].decode("utf-8", "replace").replace("\0", "")
        self._begun.clear()
        self._left -= 1
        if self._left > 0:
            self._on_line(text[: limits.BUILD_LINE_MAX])
        elif self._left == 0:
            self._on_line(f"… more than {limits.BUILD_STEP_LINES} lines; the rest is left out")
