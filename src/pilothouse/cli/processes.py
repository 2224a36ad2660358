"""`worker --processes N`: keeps N worker processes up, hands on signals, and restarts one that died."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from types import FrameType

from pilothouse.config import child_environment
from pilothouse.telemetry.logs import get_logger

LOOK_SECONDS = 0.1
RESTART_SECONDS = (0.5, 1.0, 2.0, 5.0, 15.0)
"""Waits before a restart; the last one repeats. A process that lasted a minute starts over at the first."""
STEADY_SECONDS = 60.0

CLEAN_CODES = (0, -signal.SIGTERM)
"""How a worker ends after SIGTERM: drained, or ended by it while it was still starting and held nothing."""


@dataclass(slots=True)
class _Place:
    """One of the N processes, and when it may be started again."""

    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    start_at: float = 0.0
    code: int = field(default=0)


def keep_up(count: int) -> int:
    """Returns when all have drained after SIGTERM or SIGINT: 0, or 1 if one did not exit cleanly."""
    places = [_Place() for _ in range(count)]
    signals: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        signals.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    while not signals:
        for place in places:
            _look_after(place)
        time.sleep(LOOK_SECONDS)
    return _stop([place.process for place in places if place.process is not None], signals)


def _stop(processes: list[subprocess.Popen[bytes]], signals: list[int]) -> int:
    """Hands on each signal as SIGTERM, those that come meanwhile too: the second one makes a worker exit at once."""
    handed_on = 0
    while any(process.poll() is None for process in processes):
        if handed_on < len(signals):
            handed_on += 1
            for process in processes:
                process.send_signal(signal.SIGTERM)
        time.sleep(LOOK_SECONDS)
    return max((int(process.returncode not in CLEAN_CODES) for process in processes), default=0)


def _look_after(place: _Place) -> None:
    now = time.monotonic()
    if place.process is None:
        if now >= place.start_at:
            place.process, place.started = _start(), now
        return
    code = place.process.poll()
    if code is None:
        return
    place.deaths = 1 if now - place.started > STEADY_SECONDS else place.deaths + 1
    wait = RESTART_SECONDS[min(place.deaths, len(RESTART_SECONDS)) - 1]
    get_logger("pilothouse.cli").error("worker.died", pid=place.process.pid, code=code, restart_in_seconds=wait)
    place.process, place.start_at = None, now + wait


def _start() -> subprocess.Popen[bytes]:
    """The same command, as one process. In a session of its own, so that Ctrl-C reaches it through us, once."""
    arguments = [sys.executable, "-m", "pilothouse", *_without_processes(sys.argv[1:])]
    return subprocess.Popen(arguments, env=child_environment(), start_new_session=True)


def _without_processes(arguments: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == "--processes":
            skip = True
        elif not argument.startswith("--processes="):
            kept.append(argument)
    return kept
