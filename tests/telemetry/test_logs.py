"""Logs: the fields of a JSON line, levels, what libraries log, and what happens when nothing can be written."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
import structlog

from pilothouse.errors import ConfigError
from pilothouse.telemetry.events import WorkerPaused, WorkerStarted
from pilothouse.telemetry.logs import configure_logs, get_logger
from pilothouse.telemetry.sinks import EventLog
from tests.patience import WAIT_SECONDS

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leaves the logging of this process as it was."""
    config, root = structlog.get_config(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.configure(**config)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    """The lines of the log so far; it takes all levels from info on, as JSON."""
    path = tmp_path / "test.log"
    configure_logs("info", "json", f"file:{path}")
    return lambda: [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_a_line_has_its_fields_at_their_places(lines: Lines) -> None:
    with structlog.contextvars.bound_contextvars(run_id="r1", attempt=2, trace_id="t1", span_id="s1"):
        get_logger("pilothouse.test").info("run.settled", state="succeeded")

    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "pilothouse.test",
        "message": "run.settled",
        "context": {"run_id": "r1", "attempt": 2, "state": "succeeded"},
        "trace_id": "t1",
        "span_id": "s1",
    }


def test_lines_below_the_level_are_not_written(lines: Lines) -> None:
    log = get_logger("test")

    log.debug("no")
    log.warning("yes")

    assert [(line["level"], line["message"]) for line in lines()] == [("warning", "yes")]


def test_an_exception_is_one_line_with_its_traceback(lines: Lines) -> None:
    secret = "hunter2"
    try:
        raise ValueError("it broke")
    except ValueError:
        get_logger("test").exception("failed", length=len(secret))

    (line,) = lines()
    assert (line["level"], line["context"]) == ("error", {"length": 7})
    assert "ValueError: it broke" in line["exception"]
    assert line["exception"].count("hunter2") == 0


def test_what_libraries_log_has_the_same_form(lines: Lines) -> None:
    logging.getLogger("psycopg.pool").warning("connection %s is bad", 7)
    logging.getLogger("uvicorn.access").critical("GET /")
    logging.getLogger("psycopg.pool").debug("no")

    (line,) = lines()
    assert (line["logger"], line["level"], line["message"]) == ("psycopg.pool", "warning", "connection 7 is bad")


def test_whatever_is_logged_becomes_a_line(lines: Lines) -> None:
    class Sullen:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    values = {"big": 2**70, "bytes": b"\xff", "object": Sullen(), "set": {1}, "broken": "\ud800", "nan": float("nan")}
    for name, value in values.items():
        get_logger("test").info("value", **{name: value})

    assert [list(line["context"]) for line in lines()] == [[name] for name in values]


def test_a_library_that_cannot_format_its_own_message_does_no_harm(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)

    logging.getLogger("library").warning("%d", "not a number")

    assert lines() == []


def test_configuring_again_does_not_write_twice(lines: Lines, tmp_path: Path) -> None:
    configure_logs("info", "json", f"file:{tmp_path / 'test.log'}")

    logging.getLogger("library").warning("once")

    assert len(lines()) == 1


def test_a_terminal_gets_lines_for_people(tmp_path: Path) -> None:
    path = tmp_path / "pretty.log"
    configure_logs("info", "pretty", f"file:{path}")

    get_logger("test").info("run.settled", state="succeeded")

    assert "run.settled" in path.read_text()
    assert "state=succeeded" in path.read_text()
    assert "\x1b" not in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("loud", "json", "stderr"), "'loud'"),
        (("info", "xml", "stderr"), "'xml'"),
        (("info", "json", "syslog"), "'syslog'"),
        (("info", "json", "file:"), "'file:'"),
        (("info", "json", "file:/nowhere/at/all.log"), "/nowhere/at/all.log"),
    ],
)
def test_a_wrong_setting_is_found_at_the_start(arguments: tuple[str, str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        configure_logs(*arguments)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_does_not_stop_the_work() -> None:
    configure_logs("info", "json", "file:/dev/full")

    get_logger("test").info("lost")
    logging.getLogger("library").warning("lost")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_a_closed_or_full_stderr_does_not_stop_the_work(redirection: str) -> None:
    program = (
        "import logging; from pilothouse.telemetry.logs import configure_logs, get_logger; "
        "configure_logs(); get_logger('test').info('lost'); logging.getLogger('library').warning('lost'); print('done')"
    )

    result = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, program],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stdout) == (0, "done\n")


def test_lines_go_to_stderr_and_never_to_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json", "stderr")

    get_logger("test").info("here")

    captured = capfd.readouterr()
    assert (captured.out, orjson.loads(captured.err)["message"]) == ("", "here")


def test_before_anything_is_configured_only_warnings_are_written() -> None:
    program = "from pilothouse.telemetry.logs import get_logger; log = get_logger('x'); log.info('a'); log.warning('b')"

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout == ""
    assert [line for line in result.stderr.splitlines() if "[x]" in line] == result.stderr.splitlines()
    assert len(result.stderr.splitlines()) == 1


def test_the_file_that_was_replaced_is_closed(tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    for n in range(20):
        configure_logs("info", "json", f"file:{tmp_path / str(n)}")

    assert psutil.Process().num_fds() - before < 5


def test_lines_of_events_go_together_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    configure_logs("info", "json", f"file:{file}")
    log = EventLog()
    for number in range(12_000):
        log(WorkerStarted(f"w{number}", "a", 1))
        if number % 1_000 == 0:
            log(WorkerPaused(f"w{number}", "gone"))
            last = json.loads(file.read_text().splitlines()[-1])
            assert (last["message"], last["context"]["worker_id"]) == ("worker.paused", f"w{number}"), "trouble is told"
    deadline = time.monotonic() + WAIT_SECONDS
    while file.read_text().count("\n") < 12_012 and time.monotonic() < deadline:
        time.sleep(0.01)
    lines = [json.loads(line)["context"]["worker_id"] for line in file.read_text().splitlines()]
    configure_logs()

    assert sorted(lines, key=lambda name: int(name[1:])) == lines
    assert len(lines) == 12_012


def test_a_forked_process_writes_no_line_twice(tmp_path: Path) -> None:
    script = f"""
import os
from pilothouse.telemetry.logs import configure_logs
from pilothouse.telemetry.sinks import EventLog
from pilothouse.telemetry.events import WorkerStarted
configure_logs("info", "json", "file:{tmp_path}/log.jsonl")
log = EventLog()
log(WorkerStarted("parent", "a", 1))
if os.fork() == 0:
    log(WorkerStarted("child", "a", 1))
    raise SystemExit
os.wait()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=WAIT_SECONDS)

    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sorted(line["context"]["worker_id"] for line in lines) == ["child", "parent"]
