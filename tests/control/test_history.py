"""The history: what changed is kept, what did not is known all the same, and old samples are thinned."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pilothouse.clock import FrozenClock
from pilothouse.control import dead, history, insights
from pilothouse.control.calls import ModelCall, StepCalls, ToolCall
from pilothouse.control.history import count_last, read_history, read_spans, sample, thin
from pilothouse.control.retention import Pruner
from pilothouse.domain.history import SeriesKey
from pilothouse.domain.prices import Usage
from pilothouse.errors import InvalidInput
from pilothouse.store.database import Database, open_database
from pilothouse.store.migrations import migrate
from tests.control.steps import card, checkpoint, claim, ended, register, settle, start_worker, submit, write

START_US = 1_800_000_000_000_000
DAY_US = 86_400_000_000
SAMPLE_US = 15_000_000


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """Its clock stands still until a test moves it."""
    db = open_database(database_url, clock=FrozenClock(START_US))
    db.start()
    migrate(db)
    register(db, card("echo", max_attempts=1), card("other"))
    yield db
    db.close()


@pytest.fixture
def worker(db: Database) -> str:
    return start_worker(db, lease_us=10**15)


def wait(db: Database, seconds: float) -> None:
    assert isinstance(db.clock, FrozenClock)
    db.clock.advance(seconds=seconds)


def end_one(db: Database, worker: str, ending: str = "succeeded", *, seconds: float = 0, **changes: object) -> str:
    run_id = submit(db)
    (run,) = claim(db, worker)
    wait(db, seconds)
    settle(db, ended(run, ending)._replace(**changes))  # type: ignore[arg-type]
    return run_id


def rows(db: Database) -> int:
    return int(db.administer(lambda tx: tx.fetch_all("SELECT count(*) AS found FROM history"))[0]["found"])


async def ended_points(db: Database, *, back_us: int, step_us: int = SAMPLE_US) -> list[int | None]:
    now = db.clock.now_us()
    found = await read_history(db, ["runs_ended"], since_us=now - back_us, until_us=now, step_us=step_us)
    return [point.value for point in found[SeriesKey("runs_ended", "echo", "succeeded")]]


async def test_only_what_has_changed_is_written_and_the_rest_is_known(db: Database, worker: str) -> None:
    end_one(db, worker)
    await sample(db)
    before = rows(db)
    for _ in range(4):
        wait(db, 15)
        await sample(db)

    assert rows(db) == before
    assert await ended_points(db, back_us=5 * SAMPLE_US) == [None, 1, 1, 1, 1, 1]

    end_one(db, worker)
    await sample(db)
    assert rows(db) == before + 2, "succeeded runs and attempts; runs took no time"
    assert await ended_points(db, back_us=SAMPLE_US) == [1, 2]


async def test_what_begins_later_was_zero_before_and_what_was_there_is_no_jump(db: Database, worker: str) -> None:
    end_one(db, worker)
    await sample(db)
    wait(db, 60)
    end_one(db, worker, "fatal")
    await sample(db)

    assert await count_last(db, "runs_ended", seconds=3600) == 1, "the first success was counted before the history"
    assert await count_last(db, "runs_ended", seconds=3600, label="failed") == 1
    assert await count_last(db, "runs_ended", seconds=3600, label="succeeded") == 0
    assert await count_last(db, "runs_failed", seconds=3600, agent="echo", label="code") == 1
    assert await count_last(db, "runs_failed", seconds=3600, agent="other") == 0


async def test_the_last_seconds_are_told_per_series(db: Database, worker: str) -> None:
    await sample(db)
    for _ in range(3):
        wait(db, 15)
        end_one(db, worker, seconds=2)
        await sample(db)

    took = await read_spans(db, "run_us", seconds=3600)
    assert took[SeriesKey("run_us", "echo", "")].increase == 6_000_000
    assert await count_last(db, "attempts", seconds=17, label="succeeded") == 1
    wait(db, 60)
    assert await count_last(db, "attempts", seconds=20, label="succeeded") == 0


async def test_gauges_tell_of_the_queue_and_the_workers(db: Database, worker: str) -> None:
    submit(db)
    submit(db)
    wait(db, 42)
    claim(db, worker, agents=("other",))
    await sample(db)
    now = db.clock.now_us()
    found = await read_history(
        db, ["queued", "running", "oldest_age_us", "workers"], since_us=now, until_us=now, step_us=SAMPLE_US
    )

    values = {key: points[0].value for key, points in found.items()}
    assert values[SeriesKey("queued", "echo", "normal")] == 2
    assert values[SeriesKey("running", "echo", "normal")] == 0
    assert values[SeriesKey("oldest_age_us", "echo", "normal")] == 42_000_000
    assert values[SeriesKey("workers", "", "running")] == 1
    assert values[SeriesKey("workers", "", "draining")] == 0


async def test_calls_are_counted_with_the_step_that_they_belong_to(db: Database, worker: str) -> None:
    await sample(db)
    submit(db)
    (run,) = claim(db, worker)
    usage = Usage(input=100, cache_read=50, output=20, reasoning=5)
    failed = ModelCall("main", "a:big", "failed", "down", "", Usage(), None, 0, None, START_US, 10)
    answered = ModelCall("main", "b:small", "answered", None, None, usage, None, 700, "list", START_US, 3000)
    tool = ToolCall("send/mail", "write", None, "code", "{}", "failed", 40, START_US, 500)
    step = checkpoint(run, "ask")._replace(calls=StepCalls(models=(failed, answered), tools=(tool,)))
    assert write(db, step) == [None]
    stale = checkpoint(run._replace(attempt=9), "again")._replace(calls=StepCalls(tools=(tool,)))
    assert write(db, stale) != [None], "what is not stored is not counted"
    wait(db, 15)
    await sample(db)

    counted = {
        (name, key.agent, key.label): span.increase
        for name in ("model_calls", "tool_calls", "cost_microusd", "tokens", "routing", "model_us", "tool_us")
        for key, span in (await read_spans(db, name, seconds=60)).items()
    }
    assert counted == {
        ("model_calls", "echo", "a:big/failed"): 1,
        ("model_calls", "echo", "b:small/answered"): 1,
        ("model_us", "echo", "b:small"): 3000,
        ("cost_microusd", "echo", "model/b:small"): 700,
        ("cost_microusd", "echo", "tool/send/mail"): 40,
        ("tokens", "echo", "input"): 150,
        ("tokens", "echo", "output"): 25,
        ("routing", "echo", "main/fallback"): 1,
        ("tool_calls", "echo", "send/mail/failed"): 1,
        ("tool_us", "echo", "send/mail"): 500,
    }


async def test_runs_that_asked_people_are_counted_once_they_have_ended(db: Database, worker: str) -> None:
    await sample(db)
    end_one(db, worker, has_asked=True)
    end_one(db, worker)
    wait(db, 15)
    await sample(db)

    assert await count_last(db, "runs_asked", seconds=60) == 1


async def test_old_samples_are_thinned_and_pruned_and_nothing_is_forgotten(db: Database, worker: str) -> None:
    await sample(db)
    for _ in range(60):
        wait(db, 15)
        end_one(db, worker)
        await sample(db)
    fine = await ended_points(db, back_us=900_000_000, step_us=300_000_000)
    wait(db, 7 * 3600)
    pruner = Pruner(db, None, None, 30 * DAY_US)
    before = rows(db)
    await pruner.prune()

    thinned = rows(db)
    assert thinned < before / 5
    now = db.clock.now_us() - 7 * 3_600_000_000
    found = await read_history(
        db, ["runs_ended"], since_us=now - 900_000_000, until_us=now, step_us=300_000_000, agent="echo"
    )
    values = [point.value for point in found[SeriesKey("runs_ended", "echo", "succeeded")]]
    assert values == fine, "the last of each five minutes is as it was"
    await pruner.prune()
    assert rows(db) == thinned

    wait(db, 31 * 86_400)
    await thin(db, keep_us=30 * DAY_US)
    last = {key: span.last for key, span in (await read_spans(db, "runs_ended", seconds=60)).items()}
    assert last[SeriesKey("runs_ended", "echo", "succeeded")] == 60
    series = db.administer(lambda tx: tx.fetch_all("SELECT count(*) AS found FROM history_series"))[0]["found"]
    assert rows(db) == series


async def test_thinning_goes_on_until_all_is_done(db: Database, worker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "BATCH", 3)
    for _ in range(15):
        end_one(db, worker)
        await sample(db)
        wait(db, 15)
    wait(db, 6 * 3600 + 300)
    await thin(db, keep_us=30 * DAY_US)

    left = db.administer(lambda tx: tx.fetch_all("SELECT count(*) AS found FROM history WHERE is_fine = 1"))
    assert left[0]["found"] == 0


async def test_a_clock_that_was_set_back_leaves_no_samples_of_the_future(db: Database, worker: str) -> None:
    end_one(db, worker)
    await sample(db)
    db.administer(lambda tx: tx.execute(f"UPDATE history SET at = at + {DAY_US}, value = value + 7"))
    await sample(db)

    assert await ended_points(db, back_us=0) == [1]
    wait(db, 172_800)
    assert await ended_points(db, back_us=0) == [1]


async def test_two_leaders_at_the_same_instant_write_one_sample(db: Database, worker: str) -> None:
    end_one(db, worker)
    await sample(db)
    before = rows(db)
    await sample(db)

    assert rows(db) == before


async def test_what_is_not_kept_is_refused(db: Database) -> None:
    now = db.clock.now_us()
    with pytest.raises(InvalidInput, match="no history of 'nonsense'; names: attempts"):
        await read_history(db, ["nonsense"], since_us=now, until_us=now, step_us=1)
    with pytest.raises(InvalidInput, match="3601 points per series, and 1 to 2000 can be had"):
        await read_history(db, ["queued"], since_us=now - 3_600_000_000, until_us=now, step_us=1_000_000)
    with pytest.raises(InvalidInput, match="no history of 'x'"):
        await count_last(db, "x", seconds=1)


async def test_how_runs_ended_agrees_with_the_run_log_after_redrives(db: Database, worker: str) -> None:
    run_id = end_one(db, worker, "fatal")
    await dead.redrive_run(db, run_id, principal="test")
    (run,) = claim(db, worker)
    settle(db, ended(run))
    await sample(db)

    spans = await read_spans(db, "runs_ended", seconds=60)
    assert {key.label: span.last for key, span in spans.items()} == {"failed": 1, "succeeded": 1}
    (queue,) = [each for each in await insights.queue_insights(db) if each.runs]
    assert queue.runs["succeeded"] == 1
