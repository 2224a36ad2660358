"""What a process costs: how long it takes to start, how much memory it holds at rest."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROUNDS = 5
COMMAND = (sys.executable, "-m", "pilothouse")
AGENTS = "from bench.product import app\n"


def seconds_of(*arguments: str) -> float:
    """The median time of a command from its start to its end."""
    return statistics.median(_seconds(arguments) for _ in range(ROUNDS))


def _seconds(arguments: tuple[str, ...]) -> float:
    started = time.perf_counter()
    subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def up_at_rest() -> tuple[float, float]:
    """`up` on a new SQLite file: seconds until it is ready, and the memory (RSS, in MB) that it then holds."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-bench-") as folder:
        started = time.perf_counter()
        with _running(Path(folder)) as process:
            url = _url_of(process)
            while not _is_ready(url):
                time.sleep(0.01)
            took = time.perf_counter() - started
            return took, _resident_megabytes(process.pid)


@contextmanager
def _running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    (folder / "agents.py").write_text(AGENTS, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "DATABASE_URL": "sqlite:///bench.db"}
    command = [*COMMAND, "up", "agents:app", "--port", "0"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def _url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            return found[0]
    raise RuntimeError("`up` ended before it said where it is")


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def _resident_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    (kilobytes,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return int(kilobytes) / 1000
