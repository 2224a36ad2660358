"""Whole processes: how long they take to start, the memory they hold, what two of them do, what HTTP answers."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROUNDS = 5
WAVES = 8
COMMAND = (sys.executable, "-m", "pilothouse")
AGENTS = "from bench.product import app\n"
SUBMIT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"agent": "noop", "input": {}}'
"""


def seconds_of(*arguments: str) -> float:
    """The median time of a command from its start to its end."""
    return statistics.median(_seconds(arguments) for _ in range(ROUNDS))


def _seconds(arguments: tuple[str, ...]) -> float:
    started = time.perf_counter()
    subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def up_at_rest() -> tuple[float, float]:
    """`up` on a new SQLite file: seconds until it is ready, and the memory (RSS, in MB) that it then holds."""
    started = time.perf_counter()
    with up("sqlite:///bench.db") as (process, _):
        return time.perf_counter() - started, _resident_megabytes(process.pid)


def memory_of_running(count: int) -> float:
    """What `up` holds more (RSS, in KB) per run that runs, the caches that grow with the first ones included."""
    with up("sqlite:///bench.db", PILOTHOUSE_LANES=f"normal={count}") as (process, url):
        before = _resident_megabytes(process.pid)
        _submit(url, "sleeper", count, "running")
        return (_resident_megabytes(process.pid) - before) * 1000 / count


def memory_of_suspended(count: int) -> float:
    """What `up` holds more (RSS, in KB) per run that is suspended, once the database's caches are full."""
    with up("sqlite:///bench.db", PILOTHOUSE_LANES=f"normal={count}") as (process, url):
        for wave in range(WAVES):
            _submit(url, "napper", count, "waiting", already=wave * count)
        before = _resident_megabytes(process.pid)
        _submit(url, "napper", count, "waiting", already=WAVES * count)
        return max(0.0, _resident_megabytes(process.pid) - before) * 1000 / count


def http_submits(database_url: str, seconds: int) -> tuple[float, float]:
    """Submits per second by 32 connections of wrk to an API of its own process, and the 99th percentile in ms."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-bench-") as folder:
        script = Path(folder) / "submit.lua"
        script.write_text(SUBMIT, encoding="utf-8")
        with up(database_url, "api") as (_, url):
            command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "--latency", "-s", str(script), f"{url}/api/v1/runs"]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in told:
        raise RuntimeError(told)
    (rate,) = re.findall(r"Requests/sec:\s+([\d.]+)", told)
    ((worst, unit),) = re.findall(r"99%\s+([\d.]+)(us|ms|s)", told)
    return float(rate), float(worst) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def drained_by_workers(database_url: str, processes: int, span: Callable[[], tuple[int, float]]) -> float:
    """Runs per second of so many worker processes. `span` says how many have ended, and between which instants."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-bench-") as folder:
        options = ("--processes", str(processes), "--lanes", "normal=256", "--shared", "0")
        with running(Path(folder), database_url, "worker", *options):
            return _rate(span)


def _rate(span: Callable[[], tuple[int, float]]) -> float:
    while (found := span())[0] == 0:
        time.sleep(0.05)
    count, seconds = found
    return count / seconds


def _submit(url: str, agent: str, count: int, state: str, *, already: int = 0) -> None:
    """Submits runs and waits until all of them are in a state."""
    for _ in range(0, count, 500):
        body = json.dumps({"runs": [{"agent": agent, "input": {}}] * 500}).encode()
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{url}/api/v1/runs:batch", body, headers)).close()
    while _in_state(url, state) < already + count:
        time.sleep(0.1)
    time.sleep(1.0)  # what was answered last is let go


def _in_state(url: str, state: str) -> int:
    with urllib.request.urlopen(f"{url}/api/v1/overview") as answer:
        return sum(queue["runs"].get(state, 0) for queue in json.load(answer)["queues"])


@contextmanager
def up(database_url: str, role: str = "up", **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server of its own process that is ready, and its URL."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-bench-") as folder:
        app = () if role == "api" else ("agents:app",)
        with running(Path(folder), database_url, role, *app, "--port", "0", **settings) as process:
            url = url_of(process)
            while not _is_ready(url):
                time.sleep(0.01)
            yield process, url


@contextmanager
def running(folder: Path, database_url: str, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a folder that has the bench's agents."""
    (folder / "agents.py").write_text(AGENTS, encoding="utf-8")
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "src")))
    own = {"PYTHONPATH": paths, "DATABASE_URL": database_url, "LOG_LEVEL": "warning"}
    environment = os.environ | own | {"PILOTHOUSE_APP": "agents:app"} | settings
    command = [*COMMAND, *arguments]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            return found[0]
        said.append(line)
    raise RuntimeError(f"it ended before it said where it is: {''.join(said)}")


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
