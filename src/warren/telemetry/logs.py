"""Structured logs on stderr: for people, or one JSON object per line."""

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from warren.model import limits
from warren.model.errors import BadRequest
from warren.telemetry.redaction import HIDDEN, clean, clean_text, names_secret, printable

LEVELS = ("debug", "info", "warning", "error")

_TALKATIVE = {"alembic": logging.WARNING, "httpx": logging.WARNING, "aiohttp.access": logging.WARNING}
"""Libraries whose INFO is our DEBUG."""

_TRACEBACK = "exception"
"""The only value that may have several lines."""


def configure(level: str, json: bool, stream: TextIO | None = None, file: Path | None = None) -> None:
    """Send our own logs and those of libraries the same way, and to `file` as JSON, which is rotated.

    Raises BadRequest for an unknown level, and for a file that cannot be written.
    """
    if level.lower() not in LEVELS:
        raise BadRequest(f"cannot use the log level {level!r}: choose one of {', '.join(LEVELS)}")
    number = logging.getLevelNamesMapping()[level.upper()]
    out = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        without_secrets,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handlers: list[logging.Handler] = [logging.StreamHandler(out)]
    handlers[0].setFormatter(_formatter(shared, _renderers(json, out)))
    if file is not None:
        handlers.append(_file_handler(file))
        handlers[1].setFormatter(_formatter(shared, [structlog.processors.JSONRenderer()]))
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(number)
    for name, floor in _TALKATIVE.items():
        logging.getLogger(name).setLevel(max(number, floor))


def _formatter(shared: list[Processor], renderers: list[Processor]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )


def _file_handler(file: Path) -> logging.Handler:
    """For the owner alone: a log names sandboxes and addresses of all projects."""
    try:
        file.touch(mode=0o600)
        return RotatingFileHandler(file, maxBytes=limits.LOG_FILE_BYTES, backupCount=limits.LOG_FILES_KEPT)
    except OSError as error:
        raise BadRequest(f"cannot write the log to {file}: {error.strerror}; set WARREN_LOG_FILE") from error


def without_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Also for `exc_info` texts, so it has to come after they are rendered."""
    for name, value in event.items():
        if name.startswith("_"):
            continue  # structlog's own, on its way to the formatter
        if names_secret(name):
            event[name] = HIDDEN
        else:
            event[name] = clean_text(value) if name == _TRACEBACK and isinstance(value, str) else clean(value)
    return event


def one_line(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if isinstance(value, str) and name != _TRACEBACK:
            event[name] = printable(value)
        elif isinstance(value, str):
            event[name] = "\n".join(map(printable, value.split("\n")))
    return event


def _renderers(json: bool, out: TextIO) -> list[Processor]:
    if json:
        return [structlog.processors.JSONRenderer()]
    return [one_line, structlog.dev.ConsoleRenderer(colors=out.isatty())]
