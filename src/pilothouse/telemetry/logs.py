"""Logs: JSON lines for machines or coloured lines for a terminal, with what libraries log put through the same form.

A line that cannot be written is dropped: neither a full disk nor a closed stream may stop the work it would tell of.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Protocol, cast

import orjson
import structlog
from structlog.typing import FilteringBoundLogger, Processor

from pilothouse.clock import SystemClock, isoformat
from pilothouse.errors import ConfigError

LEVELS = ("debug", "info", "warning", "error", "critical")
FORMATS = ("auto", "json", "pretty")
FILE_PREFIX = "file:"

_TOP_LEVEL = ("timestamp", "level", "logger", "trace_id", "span_id", "exception")
_SILENCED = ("uvicorn.access",)
"""Loggers of others whose lines our own replace."""

_clock = SystemClock()


def configure_logs(level: str = "info", format: str = "auto", destination: str = "stderr") -> None:
    """Sends the logs of this process, and of the libraries in it, to `stderr` or `file:PATH`.

    `format` is json, pretty, or auto: pretty on a terminal. Raises ConfigError for a level, a format or a destination
    that does not exist, and for a file that cannot be opened.
    """
    threshold = _threshold(level)
    output = _open_output(destination)
    render = _renderer(format, output)
    _configure(threshold, output, render, is_final=True)
    _route_libraries(threshold, _Route(output, render))


def _configure(threshold: int, output: _Output, render: Render, *, is_final: bool) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _describe,
            structlog.processors.format_exc_info,
            cast(Processor, render),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *names: _Lines(output, *names),
        cache_logger_on_first_use=is_final,
    )


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of a module. A call below the level costs next to nothing; key words become the context."""
    return cast(FilteringBoundLogger, structlog.get_logger(name))


def _threshold(level: str) -> int:
    if level.lower() not in LEVELS:
        raise ConfigError(f"log level {level!r} does not exist; use one of {', '.join(LEVELS)}")
    return logging.getLevelNamesMapping()[level.upper()]


# --- where lines go ----------------------------------------------------------------------------


class _Output(Protocol):
    @property
    def is_terminal(self) -> bool: ...

    def write(self, line: bytes) -> None: ...


class _Stderr:
    """The process's standard error, looked up at each line: a descriptor that was closed may belong to another file."""

    @property
    def is_terminal(self) -> bool:
        try:
            return sys.stderr.isatty()
        except (AttributeError, ValueError):  # None or closed
            return False

    def write(self, line: bytes) -> None:
        try:
            os.write(sys.stderr.fileno(), line)
        except (AttributeError, OSError, ValueError):
            pass


class _File:
    is_terminal = False

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        except OSError as error:
            raise ConfigError(f"the log file {path} cannot be opened: {error.strerror}; give another path") from error

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def write(self, line: bytes) -> None:
        try:
            os.write(self._descriptor, line)
        except OSError:
            pass


def _open_output(destination: str) -> _Output:
    if destination == "stderr":
        return _Stderr()
    if destination.startswith(FILE_PREFIX) and destination != FILE_PREFIX:
        return _File(Path(destination.removeprefix(FILE_PREFIX)))
    raise ConfigError(f"log destination {destination!r} does not exist; use stderr or {FILE_PREFIX}PATH")


# --- how lines look ----------------------------------------------------------------------------

Fields = MutableMapping[str, Any]
Render = Callable[[Any, str, Fields], str | bytes]


def _renderer(format: str, output: _Output) -> Render:
    match format:
        case "json":
            return _render_json
        case "pretty":
            return _pretty(colors=output.is_terminal)
        case "auto":
            return _pretty(colors=True) if output.is_terminal else _render_json
    raise ConfigError(f"log format {format!r} does not exist; use one of {', '.join(FORMATS)}")


def _pretty(*, colors: bool) -> Render:
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)


def _describe(logger: Any, method: str, event: Fields) -> Fields:
    event["timestamp"] = isoformat(_clock.now_us())
    event["level"] = "error" if method == "exception" else method
    event["logger"] = logger.name
    return event


def _render_json(logger: Any, method: str, event: Mapping[str, Any]) -> bytes:
    line = {name: event[name] for name in _TOP_LEVEL if name in event}
    line["message"] = event.get("event", "")
    line["context"] = {name: value for name, value in event.items() if name not in line and name != "event"}
    try:
        return orjson.dumps(line, default=_shown, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # what orjson cannot write at all: integers beyond 64 bits, halves of surrogate pairs
        text = json.dumps(line, default=_shown, skipkeys=True, ensure_ascii=False)
        return text.encode(errors="replace")


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001  # an object that cannot show itself must not take the line with it
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"


class _Lines:
    """What a structlog logger writes through. One method for every level: the line bears its own."""

    def __init__(self, output: _Output, name: str = "pilothouse") -> None:
        self.name, self._output = name, output

    def write(self, line: str | bytes) -> None:
        _write(self._output, line)

    debug = info = warning = error = critical = exception = write


def _write(output: _Output, line: str | bytes) -> None:
    data = line.encode(errors="backslashreplace") if isinstance(line, str) else line
    output.write(data + b"\n")


# --- what libraries log ------------------------------------------------------------------------


class _Route(logging.Handler):
    """Puts the records of the standard library's logging into our form."""

    def __init__(self, output: _Output, render: Render) -> None:
        super().__init__()
        self._output, self._render = output, render

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _write(self._output, self._line(record))
        except Exception:  # noqa: BLE001  # a library's message may fail in any way while it is put together
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> str | bytes:
        event: Fields = {"event": record.getMessage(), "exc_info": record.exc_info, "stack": record.stack_info}
        event = {name: value for name, value in event.items() if value}
        event = structlog.contextvars.merge_contextvars(None, "", event)
        event = _describe(record, record.levelname.lower(), event)
        event = structlog.processors.format_exc_info(None, "", event)
        return self._render(None, "", event)


def _route_libraries(threshold: int, route: _Route) -> None:
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, _Route)]:
        root.removeHandler(handler)
    root.addHandler(route)
    root.setLevel(threshold)
    for name in _SILENCED:
        logging.getLogger(name).disabled = True


# Until `configure_logs` is called. structlog's own default writes every line to standard output, tracebacks with the
# values of local variables included.
if not structlog.is_configured():
    _configure(logging.WARNING, _Stderr(), _pretty(colors=False), is_final=False)
