"""How fast the runs of a version have used tokens, on both stores."""

from __future__ import annotations

from pilothouse.control.calls import ModelCall, StepCalls
from pilothouse.control.runaways import Runaways, token_peaks
from pilothouse.domain.prices import Usage
from pilothouse.domain.runaways import LEAST_RUNS, MINUTE_US, RunawayRule
from pilothouse.store.database import Database
from tests.control.steps import checkpoint, claim, ended, settle, submit, write


def called(at: int, tokens: int) -> ModelCall:
    usage = Usage(input=tokens - 3, cache_read=1, output=1, reasoning=1)
    return ModelCall("default", "m", "answered", None, None, usage, None, 0, None, at, 5)


def lived(db: Database, worker: str, count: int, *minutes: int, ending: str = "succeeded") -> None:
    """Runs that have used so many tokens in each of their minutes."""
    for _ in range(count):
        submit(db)
    for run in claim(db, worker):
        first = run.claimed_at - run.claimed_at % MINUTE_US
        calls = tuple(called(first + place * MINUTE_US, tokens) for place, tokens in enumerate(minutes))
        assert write(db, checkpoint(run, "ask")._replace(calls=StepCalls(models=calls))) == [None]
        settle(db, ended(run, "succeeded" if ending == "succeeded" else "fatal"))


async def test_the_busiest_minute_of_each_run_that_succeeded_counts(db: Database, worker: str) -> None:
    lived(db, worker, 3, 100, 500, 20)
    lived(db, worker, 1, 9_000, ending="failed")

    peaks = await db.read(lambda tx: token_peaks(tx, "f"))

    assert sorted(int(row["peak"]) for row in peaks) == [500, 500, 500]
    assert await db.read(lambda tx: token_peaks(tx, "another")) == []


async def test_a_run_is_too_fast_only_where_there_is_history(db: Database, worker: str) -> None:
    lived(db, worker, LEAST_RUNS - 1, 100)
    assert await Runaways(db).too_fast(10_000, "f") is None

    lived(db, worker, 1, 100)
    runaways = Runaways(db)

    assert await runaways.too_fast(300, "f") is None
    assert await runaways.too_fast(301, "f") == (301, 300)
    assert await runaways.too_fast(10_000, "another") is None
    assert await Runaways(db, RunawayRule(velocity=0.0)).too_fast(10_000, "f") is None
