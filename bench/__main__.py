"""`python -m bench [--store sqlite|postgres] [--scale 1.0] [--postgres-url URL]`: a table, and JSON beside it."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from bench import floor, process, product
from pilothouse.engine.loops import calm_collector, new_runner
from tests.postgres_server import close_run_directory, create_server, open_run_directory

RESULTS = Path(__file__).parent / "results.json"
ROUNDS = 3
HELD = 200_000
HTTP_SECONDS = 5
MEMORY_RUNS = 2_000
T = TypeVar("T")
DIGITS = {"ms": 1, "s": 2, "KB": 1}
SUBMITS = {"submits, one caller": 1, "submits, 64 callers": 64, "submits, batches": 500}
"""What is measured, and how many rows the floor commits at once beside it."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure on one store. `floor` is None where the least SQL says nothing about it."""

    store: str
    name: str
    unit: str
    value: float
    floor: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.floor is None else self.value / self.floor


def _run(work: Coroutine[Any, Any, T]) -> T:
    """On the loop and with the collector of a long-lived process."""
    calm_collector()
    with new_runner() as runner:
        return runner.run(work)


def measure(store: str, new_url: Callable[[], str], scale: float) -> Iterator[Figure]:
    """The median of several rounds, each on a new database."""
    runs, batch = int(12_000 * scale), product.SLOTS
    drained = [_run(product.drain_rate(new_url(), "noop", runs)) for _ in range(ROUNDS)]
    drain_floor = [floor.drain_rates(new_url(), runs, batch, 0)[0] for _ in range(ROUNDS)]
    alone = statistics.median(drained)
    yield Figure(store, "no-op runs drained", "/s", alone, statistics.median(drain_floor))
    held = int(HELD * scale)
    crowded = statistics.median(_crowded_rate(new_url(), held, runs) for _ in range(ROUNDS))
    yield Figure(store, f"the same beside {held:,} held runs", "/s", crowded, alone)
    hurried = statistics.median(_hurried_rate(new_url(), held, runs) for _ in range(ROUNDS))
    yield Figure(store, f"the same with {held:,} queued behind", "/s", hurried, alone)
    with_steps = [10 * _run(product.drain_rate(new_url(), "ten_steps", runs // 10)) for _ in range(ROUNDS)]
    step_floor = [floor.drain_rates(new_url(), runs // 10, batch, 10)[1] for _ in range(ROUNDS)]
    yield Figure(store, "checkpoints", "/s", statistics.median(with_steps), statistics.median(step_floor))
    yield from _submits(store, new_url, runs // 2)
    one, two = (
        statistics.median(_run(product.drained_by_processes(new_url(), 2 * runs, count)) for _ in range(ROUNDS))
        for count in (1, 2)
    )
    yield Figure(store, "drained by two worker processes, beside one", "/s", two, one)
    if shutil.which("wrk"):
        rate, slowest = _run(product.http_submits(new_url(), HTTP_SECONDS))
        yield Figure(store, "HTTP submits, 32 connections", "/s", rate)
        yield Figure(store, "HTTP submits, 99th percentile", "ms", slowest)
    median, worst = _run(product.pick_up_ms(new_url(), int(200 * scale) or 1))
    yield Figure(store, "pick-up, median", "ms", median)
    yield Figure(store, "pick-up, 99th percentile", "ms", worst)


def _crowded_rate(url: str, held: int, runs: int) -> float:
    """With runs of an agent that nobody runs in the queue."""
    floor.fill(url, held, agent="held")
    return _run(product.drain_rate(url, "noop", runs))


def _hurried_rate(url: str, queued: int, runs: int) -> float:
    """With more runs in the queue than are waited for."""
    floor.fill(url, queued, agent="noop")
    return _run(product.queue_rate(url, "noop", runs))


def processes() -> Iterator[Figure]:
    """What does not depend on the store."""
    yield Figure("", "pilothouse version", "s", process.seconds_of("version"))
    yield Figure("", "pilothouse --help", "s", process.seconds_of("--help"))
    ready, memory = process.up_at_rest()
    yield Figure("", "up to ready", "s", ready)
    yield Figure("", "API, worker and scheduler at rest", "MB", memory)
    yield Figure("", "memory per running run", "KB", process.memory_of_running(MEMORY_RUNS))
    yield Figure("", "memory per suspended run", "KB", process.memory_of_suspended(MEMORY_RUNS))


def _submits(store: str, new_url: Callable[[], str], runs: int) -> Iterator[Figure]:
    rates = [_run(product.submit_rates(new_url(), runs)) for _ in range(ROUNDS)]
    for name, index, batch in (
        ("submits, one caller", 0, 1),
        ("submits, 64 callers", 1, 64),
        ("submits, batches", 2, 500),
    ):
        count = runs // 10 if batch == 1 else runs
        least = statistics.median(floor.submit_rate(new_url(), count, batch) for _ in range(ROUNDS))
        yield Figure(store, name, "/s", statistics.median(rate[index] for rate in rates), least)


@contextmanager
def sqlite_urls() -> Iterator[Callable[[], str]]:
    folder = Path(tempfile.mkdtemp(prefix="pilothouse-bench-"))
    yield lambda: f"sqlite:///{folder / uuid.uuid4().hex}.db"
    shutil.rmtree(folder)


@contextmanager
def postgres_urls(given: str | None) -> Iterator[Callable[[], str]]:
    """New databases on the server of `given`, or on one that is started for this."""
    directory, descriptor = open_run_directory()
    url = given or create_server(directory).url()
    try:
        yield lambda: _new_database(url)
    finally:
        close_run_directory(directory, descriptor)


def _new_database(url: str) -> str:
    import psycopg

    name = f"bench_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def show(figures: list[Figure]) -> None:
    table = Table("store", "measure")
    for heading in ("figure", "floor", "ratio"):
        table.add_column(heading, justify="right")
    for figure in figures:
        least = "" if figure.floor is None else f"{figure.floor:,.0f}{figure.unit}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        digits = DIGITS.get(figure.unit, 0)
        table.add_row(figure.store, figure.name, f"{figure.value:,.{digits}f} {figure.unit}", least, ratio)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "postgres"))
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the full amount of work")
    parser.add_argument("--postgres-url", help="a server to measure on, instead of one that is started for this")
    options = parser.parse_args()
    figures = list(processes())
    if options.store != "postgres":
        with sqlite_urls() as new_url:
            figures += measure("SQLite", new_url, options.scale)
    if options.store != "sqlite":
        with postgres_urls(options.postgres_url) as new_url:
            figures += measure("PostgreSQL", new_url, options.scale)
    show(figures)
    RESULTS.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
