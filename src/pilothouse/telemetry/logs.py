"""Logs: JSON lines for machines or coloured lines for a terminal, with what libraries log put through the same form.

A line that cannot be written is dropped: neither a full disk nor a closed stream may stop the work it would tell of.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, cast

import orjson
import structlog
from structlog.typing import FilteringBoundLogger, Processor

from pilothouse.clock import SystemClock, isoformat
from pilothouse.errors import ConfigError
from pilothouse.telemetry import tracing
from pilothouse.telemetry.event import Event, has_content, told_fields
from pilothouse.telemetry.log_buffer import FILE_BYTES, Local
from pilothouse.telemetry.log_server import LogServer

LEVELS = ("debug", "info", "warning", "error", "critical")
LEVEL_NUMBERS = {name: logging.getLevelNamesMapping()[name.upper()] for name in LEVELS}
ENGINE = "pilothouse.engine"
FORMATS = ("auto", "json", "pretty")
FILE_PREFIX = "file:"
STREAMS = ("stderr", "stdout")

LOOK_SECONDS = 0.05
"""How long a file that was renamed may still get lines."""

_TOP_LEVEL = ("timestamp", "level", "logger", "trace_id", "span_id", "exception")
_SILENCED = ("uvicorn.access",)
"""Loggers of others whose lines our own replace."""

_clock = SystemClock()
_servers: list[LogServer] = []


def configure_logs(
    level: str = "info", format: str = "auto", destination: str = "stderr", token: str | None = None
) -> None:
    """Sends the logs of this process, and of the libraries in it, to stderr, stdout, file:PATH or https://…

    `destination` names one of them, or several with commas between. `format` is json, pretty, or auto: pretty on a
    terminal; a log server gets JSON lines, and is shown `token` as a bearer token. Raises ConfigError for a level, a
    format or a destination that does not exist, and for a file that cannot be opened.
    """
    threshold = _threshold(level)
    close_logs()
    outputs = [_open_output(each.strip(), token) for each in destination.split(",")]
    ways = [(output, _renderer(format, output)) for output in outputs]
    are_json = all(render is _render_json for _, render in ways)
    _now.threshold, _now.json_outputs = threshold, outputs if are_json else ()
    if len(ways) == 1:
        _configure(threshold, *ways[0], is_final=True)
    else:
        _configure(threshold, outputs[0], _to_all(ways), is_final=True)
    _route_libraries(threshold, [_Route(*way) for way in ways])


class _Now:
    """How logs are configured, for what is told too often to go through structlog."""

    threshold: int = logging.WARNING
    json_outputs: Sequence[_Output] = ()


_now = _Now()


def log_event(event: Event, trace: Callable[[Event], dict[str, str]]) -> None:
    """Writes an event as a line of the logger `pilothouse.engine`; `trace` says where in which trace it was.

    Each run has at least one such line, so what goes out as JSON is written here: 6 µs, and 20 µs by structlog.
    """
    if LEVEL_NUMBERS[event.level] < _now.threshold:
        return
    is_plain = bool(_now.json_outputs) and not has_content(event) and not hasattr(event, "exc_info")
    if not is_plain:
        context = {name: getattr(event, name) for name in told_fields(event)}
        getattr(get_logger(ENGINE), event.level)(event.name, **context, **trace(event))
        return
    line = {
        "timestamp": _stamp(),
        "level": event.level,
        "logger": ENGINE,
        **trace(event),
        "message": event.name,
        "context": event,
    }
    written = _dumped(line) + b"\n"
    is_urgent = LEVEL_NUMBERS[event.level] >= logging.WARNING
    for output in _now.json_outputs:
        if is_urgent or not isinstance(output, Local):
            output.write(written)
        else:
            output.write_soon(written)


def close_logs() -> None:
    """Sends what log servers have not got yet, for at most two seconds each. At the end of a process it comes by
    itself, unless that ends at once.
    """
    flush_logs()
    while _servers:
        _servers.pop().close()


def flush_logs() -> None:
    """Writes the lines that wait for others, which is for 50 ms at most."""
    for output in _now.json_outputs:
        if isinstance(output, Local):
            output.flush()


def _to_all(ways: Sequence[tuple[_Output, Render]]) -> Render:
    """Writes by itself, because each way has a form of its own."""

    def render(logger: Any, method: str, event: Fields) -> bytes:
        for output, own in ways:
            _write(output, own(logger, method, {**event}))
        raise structlog.DropEvent

    return render


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
    return LEVEL_NUMBERS[level.lower()]


# --- where lines go ----------------------------------------------------------------------------


class _Output(Protocol):
    @property
    def is_terminal(self) -> bool: ...

    def write(self, line: bytes) -> None: ...


class _Stream(Local):
    """`stderr` or `stdout`, looked up at each line: a descriptor that was closed may belong to another file."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    @property
    def is_terminal(self) -> bool:
        try:
            return bool(getattr(sys, self._name).isatty())
        except (AttributeError, ValueError):  # None or closed
            return False

    def _put(self, lines: bytes) -> None:
        try:
            os.write(getattr(sys, self._name).fileno(), lines)
        except (AttributeError, OSError, ValueError):
            pass


class _File(Local):
    """A file that is opened anew once something else is at its path: whoever rotates logs renames what is there."""

    is_terminal = False
    at_once = FILE_BYTES

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self._look_at = path, 0.0
        try:
            self._open()
        except OSError as error:
            raise ConfigError(f"the log file {path} cannot be opened: {error.strerror}; give another path") from error

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def _put(self, lines: bytes) -> None:
        try:
            if (now := _clock.monotonic()) >= self._look_at:
                self._look_at = now + LOOK_SECONDS
                self._follow()
            os.write(self._descriptor, lines)
        except OSError:
            pass

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        self._identity = _identity(os.fstat(self._descriptor))

    def _follow(self) -> None:
        """Where a new file cannot be made, the old one goes on."""
        try:
            if _identity(os.stat(self._path)) == self._identity:  # noqa: PTH116 - half the time of Path.stat
                return
        except FileNotFoundError:
            pass
        old = self._descriptor
        try:
            self._open()
        except OSError:
            return
        os.close(old)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _open_output(destination: str, token: str | None = None) -> _Output:
    if destination in STREAMS:
        return _Stream(destination)
    if destination.startswith(FILE_PREFIX) and destination != FILE_PREFIX:
        return _File(Path(destination.removeprefix(FILE_PREFIX)))
    if destination.startswith(("https://", "http://")):
        _servers.append(LogServer(destination, token, _tell_trouble))
        return _servers[-1]
    raise ConfigError(
        f"log destination {destination!r} does not exist; use {', '.join(STREAMS)}, {FILE_PREFIX}PATH or https://…"
    )


def _tell_trouble(event: Event) -> None:
    """What a log server cannot be told goes to standard error."""
    fields = {name: getattr(event, name) for name in told_fields(event)}
    logger = _Lines(_Stream("stderr"), "pilothouse.logs")
    logger.write(_render_json(logger, event.level, _describe(logger, event.level, {"event": event.name, **fields})))


# --- how lines look ----------------------------------------------------------------------------

Fields = MutableMapping[str, Any]
Render = Callable[[Any, str, Fields], str | bytes]


def _renderer(format: str, output: _Output) -> Render:
    match format:
        case _ if format in FORMATS and isinstance(output, LogServer):
            return _render_json
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
    event["timestamp"] = _stamp()
    event["level"] = "error" if method == "exception" else method
    event["logger"] = logger.name
    place = tracing.current_place()
    if place is not None and "trace_id" not in event:
        event["trace_id"], event["span_id"] = place.trace_id, place.span_id
        event.setdefault("run_id", place.run.run_id)
    return event


def _stamp() -> str:
    """The instant as text. Most of it is the same for all lines of a second."""
    second, rest = divmod(_clock.now_us(), 1_000_000)
    return f"{_second(second)}.{rest:06d}Z"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return isoformat(second * 1_000_000).partition(".")[0]


def _render_json(logger: Any, method: str, event: Mapping[str, Any]) -> bytes:
    line = {name: event[name] for name in _TOP_LEVEL if name in event}
    line["message"] = event.get("event", "")
    line["context"] = {name: value for name, value in event.items() if name not in line and name != "event"}
    return _dumped(line)


def _dumped(line: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(line, default=_shown, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # what orjson cannot write at all: integers beyond 64 bits, halves of surrogate pairs
        text = json.dumps(line, default=_fields_of, skipkeys=True, ensure_ascii=False)
        return text.encode(errors="replace")


def _fields_of(value: object) -> object:
    return {name: getattr(value, name) for name in told_fields(value)} if isinstance(value, Event) else _shown(value)


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


def _route_libraries(threshold: int, routes: Sequence[_Route]) -> None:
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, _Route)]:
        root.removeHandler(handler)
    for route in routes:
        root.addHandler(route)
    root.setLevel(threshold)
    for name in _SILENCED:
        logging.getLogger(name).disabled = True


atexit.register(close_logs)

# Until `configure_logs` is called. structlog's own default writes every line to standard output, tracebacks with the
# values of local variables included.
if not structlog.is_configured():
    _configure(logging.WARNING, _Stream("stderr"), _pretty(colors=False), is_final=False)
