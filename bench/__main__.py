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

from bench import floor, governed, models, paint, process, product, sight, telemetry, viewers
from pilothouse.engine.loops import calm_collector, new_runner
from tests.postgres_server import close_run_directory, create_server, open_run_directory

RESULTS = Path(__file__).parent / "results.json"
ROUNDS = 3
HELD = 200_000
HTTP_SECONDS = 5
MEMORY_RUNS = 2_000
VIEWERS = 200
HISTORY = 1_000_000
EVENTS_PER_SECOND = 500
TELEMETRY_ROUNDS = 6
T = TypeVar("T")
DIGITS = {"of 1": 3, "ms": 2, "s": 2, "KB": 1}
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


def measure_models(store: str, new_url: Callable[[], str], scale: float) -> Iterator[Figure]:
    """Model calls through the gateway beside the client alone, and a workflow beside the same steps."""
    calls, runs = int(640 * scale) or models.IN_FLIGHT, int(800 * scale) or 1
    with models.fake_provider():
        alone = [_run(models.direct(calls, 1)) for _ in range(ROUNDS)]
        ours = [_run(models.through_gateway(new_url(), calls, 1)) for _ in range(ROUNDS)]
        least, spent = (1000 * statistics.median(each[0] for each in rounds) for rounds in (alone, ours))
        yield Figure(store, "model call, journaled, beside the client alone", "ms", spent, least)
        many = max(calls, 10 * models.IN_FLIGHT)
        alone = [_run(models.direct(many, models.IN_FLIGHT)) for _ in range(ROUNDS)]
        ours = [_run(models.through_gateway(new_url(), many, models.IN_FLIGHT)) for _ in range(ROUNDS)]
        most, reached = (statistics.median(each[1] for each in rounds) for rounds in (alone, ours))
        yield Figure(store, f"model calls, {models.IN_FLIGHT} in flight", "/s", reached, most)
    pairs = [_run(models.graph_beside_hand(new_url(), runs)) for _ in range(ROUNDS)]
    graph, hand = (1000 * statistics.median(pair[place] for pair in pairs) / runs for place in (0, 1))
    yield Figure(store, f"workflow of {models.NODES} nodes, beside the same by hand", "ms", graph, hand)


def measure_governed(store: str, new_url: Callable[[], str], scale: float) -> Iterator[Figure]:
    """Governed calls of tools beside ungoverned ones, and one budget beside many; nothing may be overspent."""
    calls, many, budget_usd = int(600 * scale) or 1, int(6_400 * scale) or governed.IN_FLIGHT, int(1_000 * scale) or 1
    pairs = [_run(governed.alone(new_url(), calls)) for _ in range(ROUNDS)]
    spent, least = (1000 * statistics.median(pair[place] for pair in pairs) for place in (0, 1))
    yield Figure(store, "governed tool call, beside an ungoverned one", "ms", spent, least)
    yield Figure(store, "added by governance", "ms", 1000 * statistics.median(pair[0] - pair[1] for pair in pairs))
    rates = [[_run(governed.rate(new_url(), tool, many)) for tool in ("order", "look")] for _ in range(ROUNDS)]
    reached, most = (statistics.median(pair[place] for pair in rates) for place in (0, 1))
    yield Figure(store, f"governed tool calls, {governed.IN_FLIGHT} in flight", "/s", reached, most)
    shares = [
        [_run(governed.spend(new_url(), budget_usd, budgets)) for budgets in (1, governed.IN_FLIGHT)]
        for _ in range(ROUNDS)
    ]
    one, own = (statistics.median(pair[place].rate for pair in shares) for place in (0, 1))
    name = f"calls on one budget of ${budget_usd:,}, {governed.IN_FLIGHT} callers"
    yield Figure(store, f"{name}, beside {governed.IN_FLIGHT} budgets", "/s", one, own)
    yield Figure(store, "overspent", "microusd", max(each.overspent for pair in shares for each in pair))
    yield Figure(store, "left of the one budget", "microusd", max(pair[0].left for pair in shares))


def measure_viewers(store: str, new_url: Callable[[], str], scale: float) -> Iterator[Figure]:
    """What 200 viewers of 500 events a second cost the worker that makes them."""
    seen, unseen = viewers.beside_none(new_url, VIEWERS, EVENTS_PER_SECOND, max(3.0, 20 * scale), ROUNDS)
    yield Figure(store, f"CPU per run, {VIEWERS} viewers, beside none", "us", seen.cpu_us, unseen.cpu_us)
    latency = (seen.latency_us / 1000, unseen.latency_us / 1000)
    yield Figure(store, f"submit to end, {VIEWERS} viewers, beside none", "ms", *latency)
    yield Figure(store, "events that each viewer got", "of 1", seen.seen, 1.0)


def measure_paint(store: str, new_url: Callable[[], str], scale: float) -> Iterator[Figure]:
    """The overview in a browser with an empty cache."""
    look = paint.median(paint.looks(new_url(), max(3, int(15 * scale))))
    yield Figure(store, "overview, first paint", "ms", look.painted_ms)
    yield Figure(store, "overview, all that is loaded", "KB", look.travelled / 1024)


def measure_sight(store: str, new_url: Callable[[], str], scale: float) -> Iterator[Figure]:
    """How long `/metrics` and the pages take with a million ended runs behind them."""
    runs = int(HISTORY * scale)
    seconds, waits = sight.waits(new_url(), runs)
    yield Figure(store, f"{runs:,} ended runs seeded", "s", seconds)
    for each in waits:
        yield Figure(store, f"GET {each.asked}, median", "ms", each.median_ms)
        yield Figure(store, f"GET {each.asked}, 95th percentile", "ms", each.slow_ms)


def measure_telemetry(store: str, new_url: Callable[[], str], scale: float) -> Iterator[Figure]:
    """What logs, traces and MLflow cost the no-op drain."""
    on, off = telemetry.beside_none(new_url, int(6_000 * scale) or 1, TELEMETRY_ROUNDS)
    yield Figure(store, "no-op runs drained, telemetry fully on, beside off", "/s", on.rate, off.rate)
    yield Figure(store, "CPU per run, telemetry fully on, beside off", "us", on.cpu_us, off.cpu_us)
    yield Figure(store, "spans that were dropped", "", on.dropped)


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
    url = given or create_server(directory, is_durable=True).url()
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
        digits = DIGITS.get(figure.unit, 0)
        least = "" if figure.floor is None else f"{figure.floor:,.{digits}f} {figure.unit}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        table.add_row(figure.store, figure.name, f"{figure.value:,.{digits}f} {figure.unit}", least, ratio)
    Console().print(table)


PARTS: dict[str, Callable[[str, Callable[[], str], float], Iterator[Figure]]] = {
    "core": measure,
    "models": measure_models,
    "governed": measure_governed,
    "viewers": measure_viewers,
    "paint": measure_paint,
    "sight": measure_sight,
    "telemetry": measure_telemetry,
}
"""What `--only` can name."""


def _measured(only: str | None, store: str, new_url: Callable[[], str], scale: float) -> Iterator[Figure]:
    for part in PARTS if only is None else (only,):
        yield from PARTS[part](store, new_url, scale)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "postgres"))
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the full amount of work")
    parser.add_argument("--postgres-url", help="a server to measure on, instead of one that is started for this")
    parser.add_argument("--only", choices=PARTS, help="one part of it")
    options = parser.parse_args()
    figures = list(processes()) if options.only in (None, "core") else []
    if options.store != "postgres":
        with sqlite_urls() as new_url:
            figures += _measured(options.only, "SQLite", new_url, options.scale)
    if options.store != "sqlite":
        with postgres_urls(options.postgres_url) as new_url:
            figures += _measured(options.only, "PostgreSQL", new_url, options.scale)
    show(figures)
    RESULTS.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
