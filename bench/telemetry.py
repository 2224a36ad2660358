"""What telemetry costs the no-op drain: logs to a file, traces by OTLP and runs to MLflow, beside none of them."""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

from bench.product import opened, submit_batches, until_drained, working
from pilothouse.config import load_settings
from pilothouse.control.calls import totals
from pilothouse.control.runs import Submitter
from pilothouse.engine.attempt import Surroundings
from pilothouse.engine.loops import calm_collector, new_runner
from pilothouse.telemetry.courier import dropped_so_far
from pilothouse.telemetry.logs import configure_logs
from pilothouse.telemetry.setup import Telemetry

ANSWER = b'{"experiment": {"experiment_id": "1"}, "run": {"info": {"run_id": "1"}}}'
"""Good for OTLP and for all that MLflow is asked."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Runs per second, CPU time of the whole process per run in microseconds, and spans that were dropped."""

    rate: float
    cpu_us: float
    dropped: int


class _Taker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", "0")))
        self.send_response(200)
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def _take(told: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Taker)
    told.send(server.server_port)
    server.serve_forever()


@contextmanager
def receiver() -> Iterator[str]:
    """A server in a process of its own that takes everything."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_take, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


def drain(database_url: str, count: int, receiver_url: str | None) -> Drain:
    """With everything on, or with nothing where there is no receiver."""
    calm_collector()
    with tempfile.TemporaryDirectory(prefix="pilothouse-bench-") as folder, new_runner() as runner:
        if receiver_url is None:
            configure_logs("error")
        else:
            configure_logs("info", "json", f"file:{Path(folder) / 'log.jsonl'}")
        return runner.run(_drain(database_url, count, receiver_url))


async def _drain(database_url: str, count: int, receiver_url: str | None) -> Drain:
    settings = load_settings(otlp_endpoint=receiver_url, mlflow_tracking_uri=receiver_url)
    async with opened(database_url) as db:
        telemetry = Telemetry(settings, "bench", partial(totals, db))
        around = Surroundings(trace_share=telemetry.trace_share)
        await submit_batches(Submitter(db), "noop", count)
        before, started, used = _dropped(), time.perf_counter(), time.process_time()
        async with working(db, telemetry.emitter, around):
            await until_drained(db, "noop")
            rate, cpu_us = count / (time.perf_counter() - started), 1e6 * (time.process_time() - used) / count
        lost = _dropped() - before
        await asyncio.to_thread(telemetry.close)
        return Drain(rate, cpu_us, lost)


def _dropped() -> int:
    return dropped_so_far().get("spans", 0)


def beside_none(new_url: Callable[[], str], count: int, rounds: int) -> tuple[Drain, Drain]:
    """The medians of rounds with everything on and, in turn with them, with nothing."""
    with receiver() as url:
        drain(new_url(), count // 4 or 1, url)  # what is loaded once is loaded now
        pairs = []
        for number in range(rounds):
            order = (url, None) if number % 2 else (None, url)  # whoever goes first meets another machine
            done = {each: drain(new_url(), count, each) for each in order}
            pairs.append((done[url], done[None]))
    return _median([pair[0] for pair in pairs]), _median([pair[1] for pair in pairs])


def _median(drains: list[Drain]) -> Drain:
    rate, cpu_us = (statistics.median(figures) for figures in zip(*((d.rate, d.cpu_us) for d in drains), strict=True))
    return Drain(rate, cpu_us, max(each.dropped for each in drains))
