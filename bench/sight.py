"""How long an operator waits with a long history behind the pages: `/metrics` and every page of the dashboard's menu.

The history is made of real runs of twenty agents, which SQL then copies with ids and instants of their own.
"""

from __future__ import annotations

import http.client
import json
import re
import sqlite3
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench import process
from pilothouse import App, Context
from pilothouse.clock import SystemClock

AGENTS = 20
LANES = ("critical", "normal", "low")
RUNS_PER_AGENT = 100
WAITING = 50
HISTORY_DAYS = 14
SAMPLES = 1_440
"""Of each series: what six hours have at most."""

DETAILED = 10
"""One run in so many has its steps, calls and audit records, the newest one too."""

ENDED = "state IN ('succeeded', 'failed', 'cancelled')"
WHOLE, DETAILS = ("runs", "attempts"), ("checkpoints", "model_calls", "tool_calls", "audit")
OWN_IDS = {"runs": ("id", "root_id"), "audit": ("run_id", "entity_id")}
STATES = ("succeeded", "failed", "waiting")
WARM_UP, ASKED = 5, 60
app = App("bench-sight")


@app.tool(effect="read")
async def look_up(number: int) -> int:
    return number


async def desk(ctx: Context, number: int) -> str:
    if number < 0:
        await ctx.wait_for("somebody")
    await ctx.step("prepare", len, "a text")
    draft = await ctx.llm("draft", f"Answer letter {number}, as short as you can.")
    found = await ctx.tool(look_up, number=number)
    if number % 20 == 7:
        raise ValueError(f"letter {number} cannot be answered")
    return f"{draft} {found}"


for place in range(AGENTS):
    app.agent(name=f"desk-{place:02}", lane=LANES[place % len(LANES)], max_attempts=1)(desk)


@dataclass(frozen=True, slots=True)
class Waited:
    """What was asked for, and how long the whole answer took, in milliseconds."""

    asked: str
    median_ms: float
    slow_ms: float
    """The 95th percentile."""


def waits(database_url: str, runs: int) -> tuple[float, list[Waited]]:
    """The seconds that it took to copy the history, and how long each page then takes."""
    _live(database_url)
    began = time.perf_counter()
    newest = _Seeder(database_url).seed(runs)
    seconds = time.perf_counter() - began
    with process.up(database_url, "api") as (_, url):
        return seconds, list(_waits(url, newest))


def _waits(url: str, newest: str) -> Iterator[Waited]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    _, front = _get(connection, "/")
    (menu,) = re.findall(rb'<nav id="menu".*?</nav>', front, re.DOTALL)
    targets = [target.decode() for target in re.findall(rb'href="(/[^"?]*)"', menu) if b"/api/" not in target]
    more = [f"/runs?state={state}" for state in STATES] + [f"/runs/{newest}"]
    for path in ["/metrics", "/ready", *targets, *more]:
        status, _ = _get(connection, path)
        if status == http.HTTPStatus.NOT_FOUND:  # a page of the menu that this version does not have
            continue
        assert status == http.HTTPStatus.OK, f"{path} answered {status}"
        for _ in range(WARM_UP):
            _get(connection, path)
        found = sorted(_milliseconds(connection, path) for _ in range(ASKED))
        shown = "/runs/{id}" if path.endswith(newest) else path
        yield Waited(shown, statistics.median(found), found[round(0.95 * ASKED) - 1])


def _milliseconds(connection: http.client.HTTPConnection, path: str) -> float:
    began = time.perf_counter()
    _get(connection, path)
    return 1000 * (time.perf_counter() - began)


def _get(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


# --- what the history is made of ---------------------------------------------------------------


def _live(database_url: str) -> None:
    """Runs of every agent that have ended, and some that wait."""
    routes = json.dumps({"default": {"models": ["offline:echo"]}})
    with tempfile.TemporaryDirectory(prefix="pilothouse-bench-") as name:
        folder = Path(name)
        arguments = ("up", "bench.sight:app", "--port", "0")
        with process.running(folder, database_url, *arguments, PILOTHOUSE_ROUTES=routes) as server:
            url = process.url_of(server)
            while len(_json(f"{url}/api/v1/agents")["items"]) < AGENTS:
                time.sleep(0.05)
            numbers = [*range(RUNS_PER_AGENT), *(-1 for _ in range(WAITING // AGENTS or 1))]
            for place in range(AGENTS):
                _submit(url, [{"agent": f"desk-{place:02}", "input": {"number": number}} for number in numbers])
            while _busy(url):
                time.sleep(0.1)
            while not _json(f"{url}/api/v1/history?name=runs_ended")["items"]:
                time.sleep(0.5)


def _submit(url: str, runs: list[dict[str, Any]]) -> None:
    body, headers = json.dumps({"runs": runs}).encode(), {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{url}/api/v1/runs:batch", body, headers)).close()


def _busy(url: str) -> int:
    queues = _json(f"{url}/api/v1/overview")["queues"]
    return sum(queue["runs"].get(state, 0) for queue in queues for state in ("queued", "running"))


def _json(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


@dataclass(frozen=True, slots=True)
class _Words:
    """What the two databases say differently. `id` makes an id of the millisecond `ms` and the number `n`."""

    numbers: str
    id: str
    least: str


SQLITE = _Words(
    "WITH RECURSIVE counted(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n < {count} - 1)",
    "printf('%08x-%04x-7000-8000-%012x', ms >> 16, ms & 65535, n)",
    "max",
)
POSTGRES = _Words(
    "WITH counted(n) AS (SELECT generate_series(0, {count} - 1)::bigint)",
    "lpad(to_hex(ms >> 16), 8, '0') || '-' || lpad(to_hex(ms & 65535), 4, '0') || '-7000-8000-'"
    " || lpad(to_hex(n), 12, '0')",
    "greatest",
)


class _Seeder:
    """Copies ended runs on a connection of its own."""

    def __init__(self, database_url: str) -> None:
        self._is_sqlite = database_url.startswith("sqlite")
        self._words = SQLITE if self._is_sqlite else POSTGRES
        if self._is_sqlite:
            connection = sqlite3.connect(Path(database_url.removeprefix("sqlite:///")), isolation_level=None)
            self._ask: Callable[[str], Any] = lambda sql: connection.execute(sql).fetchall()
            self._ask("PRAGMA synchronous = OFF")
            self._ask("PRAGMA journal_mode = MEMORY")
            return
        import psycopg

        cursor = psycopg.connect(database_url, autocommit=True).cursor()

        def ask(sql: str) -> Any:
            cursor.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

        self._ask = ask
        self._ask("SET synchronous_commit = off")

    def seed(self, count: int) -> str:
        """Makes so many runs of those that there are; the id of the newest."""
        now_ms = SystemClock().now_us() // 1000
        step_ms = HISTORY_DAYS * 86_400_000 // count
        self._ask("BEGIN")
        self._ask(
            f"CREATE TEMPORARY TABLE source AS SELECT id, row_number() OVER (ORDER BY id) - 1 AS place, created_at"
            f" FROM runs WHERE {ENDED}"
        )
        (sources,) = self._ask("SELECT count(*) FROM source")[0]
        self._ask(
            "CREATE TEMPORARY TABLE copies AS "
            + self._words.numbers.format(count=count)
            + f", timed AS (SELECT n, {now_ms} - ({count} - n) * {step_ms} AS ms FROM counted)"
            + f" SELECT n, {self._words.id} AS new_id, source.id AS old_id, ms * 1000 - source.created_at AS later"
            f" FROM timed JOIN source ON source.place = timed.n % {sources} ORDER BY n"
        )
        for table in WHOLE:
            self._copy(table, "TRUE" if not self._is_sqlite else "1")
        for table in DETAILS:
            self._copy(table, f"n % {DETAILED} = {(count - 1) % DETAILED}")
        factor = count // sources
        self._ask(
            f"UPDATE counters SET value = value * {factor + 1} WHERE label NOT IN ('queued', 'waiting', 'running')"
        )
        self._lengthen_history(factor, now_ms)
        (newest,) = self._ask("SELECT new_id FROM copies ORDER BY n DESC LIMIT 1")[0]
        self._ask("COMMIT")
        self._ask("ANALYZE" if self._is_sqlite else "VACUUM ANALYZE")
        if self._is_sqlite:
            self._ask("PRAGMA journal_mode = WAL")
        return str(newest)

    def _copy(self, table: str, which: str) -> None:
        own = OWN_IDS.get(table, ("run_id",))
        columns = [column for column in self._columns(table) if column != "seq"]
        values = ", ".join(self._value(column, own) for column in columns)
        old_id = "id" if table == "runs" else "run_id"
        self._ask(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values}"
            f" FROM copies JOIN {table} AS original ON original.{old_id} = copies.old_id WHERE {which} ORDER BY n"
        )

    @staticmethod
    def _value(column: str, own: Sequence[str]) -> str:
        if column in own:
            return "new_id"
        return f"original.{column}" + (" + later" if column == "at" or column.endswith("_at") else "")

    def _columns(self, table: str) -> list[str]:
        if self._is_sqlite:
            return [row[1] for row in self._ask(f"PRAGMA table_info({table})")]
        asked = (
            f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}' ORDER BY ordinal_position"
        )
        return [row[0] for row in self._ask(asked)]

    def _lengthen_history(self, factor: int, now_ms: int) -> None:
        """Six hours in which every series has moved at every sample."""
        self._ask("CREATE TEMPORARY TABLE latest AS SELECT series, max(value) AS value FROM history GROUP BY series")
        self._ask("DELETE FROM history")
        self._ask(
            "INSERT INTO history (series, at, value, is_fine) "
            + self._words.numbers.format(count=SAMPLES)
            + f" SELECT series, {now_ms * 1000} - ({SAMPLES} - n) * 15000000, value * {factor} + n, 1"
            " FROM latest CROSS JOIN counted ORDER BY series, n"
        )
