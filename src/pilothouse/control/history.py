"""The history: every 15 seconds the counters and gauges that have changed are kept, so that there is a past to look at
without counting runs. Samples are 15 seconds apart for six hours, then five minutes.

A series that stands still is not written again: its last sample counts until the next one. A chore that did not run
for a while leaves no hole for the same reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial

from pilothouse.control import counters, insights
from pilothouse.control.instants import now
from pilothouse.domain.history import CUMULATIVE, NAMES, Point, SeriesKey, Span
from pilothouse.domain.runs import RunState
from pilothouse.errors import FieldError, InvalidInput
from pilothouse.store.database import Database, Row, Transaction

SAMPLE_SECONDS = 15.0
FINE_US = 6 * 3_600_000_000
"""How long all samples are kept."""

COARSE_US = 300_000_000
"""Of this long a stretch one sample is kept after that, the last."""

BATCH = 5000
FUTURE_SLACK_US = 60_000_000
MAX_POINTS = 2000

WORKER_STATES = ("running", "draining")


async def sample(db: Database) -> None:
    """The chore: keeps what has changed since the last sample."""
    await db.transaction(_sample)


def _sample(tx: Transaction) -> None:
    tx.execute("drop_future_samples", slack_us=FUTURE_SLACK_US)
    latest = {_key_of(row): row["value"] for row in tx.fetch_all("latest_samples")}
    found = _figures(tx)
    tx.send_many("add_series", [key._asdict() for key in found if key not in latest])
    changed = {key: value for key, value in found.items() if latest.get(key) != value}
    # What begins to be counted later than the history itself was zero before.
    begun = [key for key in changed if latest and key not in latest and key.name in CUMULATIVE]
    rows = [key._asdict() | {"age_us": int(SAMPLE_SECONDS * 1_000_000), "value": 0} for key in begun]
    rows += [key._asdict() | {"age_us": 0, "value": value} for key, value in changed.items()]
    tx.send_many("add_samples", rows)


def _key_of(row: Row) -> SeriesKey:
    return SeriesKey(row["name"], row["agent"], row["label"])


def _figures(tx: Transaction) -> dict[SeriesKey, int]:
    """How every series stands now."""
    counted: Counter[SeriesKey] = Counter()
    rows = counters.read(tx)
    for row in rows:
        if row["name"] in CUMULATIVE:
            counted[_key_of(row)] += row["value"]
    figures = dict(counted)
    for queue in insights.queues_of(tx, rows):
        for state in (RunState.QUEUED, RunState.RUNNING, RunState.WAITING):
            figures[SeriesKey(state, queue.agent, queue.lane)] = queue.runs.get(state, 0)
        figures[SeriesKey("oldest_age_us", queue.agent, queue.lane)] = int(queue.oldest_age_seconds * 1_000_000)
    figures |= {SeriesKey("workers", "", state): 0 for state in WORKER_STATES}
    for row in tx.fetch_all("leased_workers"):
        figures[SeriesKey("workers", "", row["state"])] += 1
    return figures


# --- looking back ------------------------------------------------------------------------------


async def read_history(
    db: Database, names: Collection[str], *, since_us: int, until_us: int, step_us: int, agent: str | None = None
) -> dict[SeriesKey, list[Point]]:
    """How series stood at `since_us` and every `step_us` after it, up to `until_us`, in microseconds.

    All series of the `names`, or those of one agent; all have the same instants, and a value of None before they began.
    Rates follow from `domain.history.rates`. Raises InvalidInput for a name that is not kept, or too many points.
    """
    _expect_known(names)
    count = (until_us - since_us) // step_us + 1
    if not 1 <= count <= MAX_POINTS:
        told = f"that would be {count} points per series, and 1 to {MAX_POINTS} can be had; take longer steps"
        raise InvalidInput(told, [FieldError("step_seconds", "too many points")])
    asked = {"since": since_us, "until": until_us, "step": step_us, "agent": agent}
    read = partial(_read, names=sorted(set(names)), asked=asked)
    return await db.read(read)


def _read(tx: Transaction, names: Collection[str], asked: Mapping[str, object]) -> dict[SeriesKey, list[Point]]:
    series: dict[SeriesKey, list[Point]] = {}
    for name in names:
        for row in tx.fetch_all("history_grid", name=name, **asked):
            series.setdefault(_key_of(row), []).append(Point(row["at"], row["value"]))
    return series


async def read_spans(db: Database, name: str, *, seconds: float, agent: str | None = None) -> dict[SeriesKey, Span]:
    """How each series of a name stood so many seconds ago, and how it stands; of a cumulative one, `increase` says how
    much was counted in the meantime. Raises InvalidInput for a name that is not kept.
    """
    return await db.read(partial(spans_in, name=name, seconds=seconds, agent=agent))


def spans_in(tx: Transaction, name: str, *, seconds: float, agent: str | None = None) -> dict[SeriesKey, Span]:
    """The same within a transaction."""
    _expect_known([name])
    rows = tx.fetch_all("history_spans", name=name, agent=agent, length_us=int(seconds * 1_000_000))
    return {_key_of(row): Span(row["first"], row["last"]) for row in rows}


async def count_last(
    db: Database, name: str, *, seconds: float, agent: str | None = None, label: str | None = None
) -> int:
    """How much of something was counted in the last so many seconds: of all agents or of one, of all labels or of one.

    Exact to one sample (15 s); nothing is counted over the run log. Raises InvalidInput for a name that is not kept.
    """
    spans = await read_spans(db, name, seconds=seconds, agent=agent)
    return sum(span.increase for key, span in spans.items() if label in (None, key.label))


def _expect_known(names: Collection[str]) -> None:
    unknown = sorted(set(names) - NAMES)
    if unknown or not names:
        told = f"there is no history of {', '.join(map(repr, unknown)) or 'nothing'}; names: {', '.join(sorted(NAMES))}"
        raise InvalidInput(told, [FieldError("name", "unknown")])


# --- retention ---------------------------------------------------------------------------------


async def thin(db: Database, *, keep_us: int) -> None:
    """Takes out what is older than six hours and not the last of its five minutes, and all that is older than `keep_us`
    but the last sample of each series. Batch after batch, each a transaction.
    """
    while await db.transaction(_thin_batch) == BATCH:
        pass
    while await db.transaction(partial(_prune_batch, keep_us=keep_us)) == BATCH:
        pass


def _thin_batch(tx: Transaction) -> int:
    before = (now(tx) - FINE_US) // COARSE_US * COARSE_US
    gone = tx.execute("thin_history", before=before, stretch=COARSE_US, limit=BATCH)
    if gone < BATCH:
        tx.execute("keep_samples", before=before)
    return gone


def _prune_batch(tx: Transaction, *, keep_us: int) -> int:
    return tx.execute("prune_history", before=now(tx) - keep_us, limit=BATCH)
