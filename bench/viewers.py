"""Many viewers of the event stream beside a worker at a steady pace: what they cost it."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from bench.process import running, up

EVENTS_PER_RUN = 3
"""Audit records of a no-op run: submitted, claimed, ended."""

BEATS_PER_SECOND = 10


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time of the worker per run and the median time from a run's submit to its end, both in microseconds;
    `seen` is how many events each viewer got, as a share of those that were written.
    """

    cpu_us: float
    latency_us: float
    seen: float


def cost(database_url: str, viewers: int, events_per_second: int, seconds: float) -> Cost:
    """An API, a worker and its viewers, each in a process of its own (viewers share one with this bench)."""
    with (
        up(database_url, "api") as (_, url),
        tempfile.TemporaryDirectory(prefix="pilothouse-bench-") as folder,
        running(Path(folder), database_url, "worker", "--lanes", "normal=64") as worker,
    ):
        return asyncio.run(_cost(url, psutil.Process(worker.pid), viewers, events_per_second, seconds))


async def _cost(url: str, worker: psutil.Process, viewers: int, pace: int, seconds: float) -> Cost:
    per_beat = max(1, round(pace / EVENTS_PER_RUN / BEATS_PER_SECOND))
    await asyncio.to_thread(_until, lambda: bool(_get(f"{url}/api/v1/agents")["items"]))
    await _beat(url, per_beat)
    await _until_ended(url, per_beat)
    seen = [0] * viewers
    streams = [asyncio.create_task(_view(url, seen, place)) for place in range(viewers)]
    await asyncio.sleep(1.0)
    before, beats = _cpu_us(worker), round(seconds * BEATS_PER_SECOND)
    started = time.perf_counter()
    for beat in range(beats):
        await asyncio.sleep(max(0.0, started + beat / BEATS_PER_SECOND - time.perf_counter()))
        await _beat(url, per_beat)
    runs = beats * per_beat
    await _until_ended(url, per_beat + runs)
    used = _cpu_us(worker) - before
    await asyncio.sleep(1.0)
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    told = min(seen, default=0) / (runs * EVENTS_PER_RUN)
    return Cost(used / runs, await asyncio.to_thread(_latency_us, url), told)


async def _view(url: str, seen: list[int], place: int) -> None:
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=2**20)
    writer.write(f"GET /api/v1/events HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
    while data := await reader.read(2**18):
        seen[place] += data.count(b"event: audit")


async def _beat(url: str, count: int) -> None:
    body = json.dumps({"runs": [{"agent": "noop", "input": {}}] * count}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/api/v1/runs:batch", body, headers)
    await asyncio.to_thread(lambda: urllib.request.urlopen(request).close())


async def _until_ended(url: str, count: int) -> None:
    def ended() -> int:
        return sum(queue["runs"].get("succeeded", 0) for queue in _get(f"{url}/api/v1/overview")["queues"])

    await asyncio.to_thread(_until, lambda: ended() >= count)


def _until(look: Callable[[], bool]) -> None:
    while not look():
        time.sleep(0.1)


def _latency_us(url: str) -> float:
    from datetime import datetime

    runs = _get(f"{url}/api/v1/runs?limit=200")["items"]
    return 1e6 * statistics.median(
        (datetime.fromisoformat(run["finished_at"]) - datetime.fromisoformat(run["created_at"])).total_seconds()
        for run in runs
    )


def _get(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def _cpu_us(process: psutil.Process) -> float:
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return 1e6 * sum(each.user + each.system for each in times)


def beside_none(
    new_url: Callable[[], str], viewers: int, events_per_second: int, seconds: float, rounds: int
) -> tuple[Cost, Cost]:
    """The medians of rounds with viewers and, in turn with them, without."""
    pairs = [
        (cost(new_url(), viewers, events_per_second, seconds), cost(new_url(), 0, events_per_second, seconds))
        for _ in range(rounds)
    ]
    with_viewers, without = ([pair[place] for pair in pairs] for place in (0, 1))
    return _median(with_viewers), _median(without)


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(each.cpu_us for each in costs),
        statistics.median(each.latency_us for each in costs),
        min(each.seen for each in costs),
    )
