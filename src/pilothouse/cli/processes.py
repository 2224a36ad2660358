"""`worker --processes N`: keeps N worker processes up, hands on signals, and restarts one that died."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from types import FrameType

from pilothouse.telemetry.logs import get_logger

LOOK_SECONDS = 0.1
RESTART_SECONDS = (0.5, 1.0, 2.0, 5.0, 15.0)
"""Waits before a restart; the last one repeats. A process that lasted a minute starts over at the first."""
STEADY_SECONDS = 60.0


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
    stopping: list[int] = []

    def hand_on(number: int, _frame: FrameType | None) -> None:
        stopping.append(number)
        for place in places:
            if place.process is not None and place.process.poll() is None:
                place.process.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    while not stopping:
        for place in places:
            _look_after(place)
        time.sleep(LOOK_SECONDS)
    return max(_wait(place) for place in places)


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
    return subprocess.Popen(arguments, start_new_session=True)


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


def _wait(place: _Place) -> int:
    return 0 if place.process is None else int(place.process.wait() != 0)
