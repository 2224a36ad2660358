"""`up --reload`: runs the command as a child process, and starts it again when a source file changes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from pilothouse.cli.output import errors
from pilothouse.config import child_environment

LOOK_SECONDS = 0.3
PATTERNS = ("*.py", "pilothouse.toml", "*.yaml")
SKIPPED = frozenset({".venv", "node_modules", "__pycache__", ".git"})


def run_reloading() -> int:
    """Returns the child's exit code once SIGINT or SIGTERM has stopped it."""
    stopping: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopping.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    child, seen = _start(), _look()
    while not stopping:
        time.sleep(LOOK_SECONDS)
        now = _look()
        if now != seen:
            seen = now
            errors().print("a source has changed: starting again", style="dim")
            _stop(child)
            child = _start()
    return _stop(child)


def _start() -> subprocess.Popen[bytes]:
    """Runs that are under way at a change are released at once; they go on in the new process."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--reload"]
    environment = child_environment(PILOTHOUSE_DRAIN_SECONDS="0")
    return subprocess.Popen([sys.executable, "-m", "pilothouse", *arguments], env=environment, start_new_session=True)


def _stop(child: subprocess.Popen[bytes]) -> int:
    if child.poll() is None:
        child.terminate()
    return child.wait()


def _look() -> dict[Path, float]:
    """The sources below the working directory, and when each was changed."""
    found = (path for pattern in PATTERNS for path in Path.cwd().rglob(pattern))
    times: dict[Path, float] = {}
    for path in found:
        if SKIPPED.isdisjoint(path.parts):
            try:
                times[path] = path.stat().st_mtime
            except FileNotFoundError:
                continue
    return times
