"""What both drivers promise: durable works, works that fail alone, snapshots, hints, orderly ends."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse.clock import FrozenClock, SystemClock
from pilothouse.errors import ConfigError, StoreError, StoreUnavailable
from pilothouse.store import calls
from pilothouse.store.database import Database, Transaction, open_database
from tests.patience import WAIT_SECONDS
from tests.store.conftest import OpenNotes
from tests.store.waiting import wait_until

WHOLE = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
REAL = st.floats(allow_nan=False, allow_infinity=False)


def add(id: str, text: str = "") -> Callable[[Transaction], None]:
    return lambda tx: tx.send("insert_note", id=id, text=text)


def count(tx: Transaction) -> int:
    row = tx.fetch_one("count_notes")
    assert row is not None
    return int(row["count"])


def fail_after_writing(tx: Transaction) -> NoReturn:
    tx.send("insert_note", id="ghost", text="")
    raise ZeroDivisionError


async def test_a_read_sees_what_was_committed(notes: Database) -> None:
    await notes.transaction(add("a", "first"))

    row = await notes.read(lambda tx: tx.fetch_one("note_by_id", id="a"))

    assert row is not None
    assert (row["id"], row["text"]) == ("a", "first")


async def test_a_work_returns_its_result(notes: Database) -> None:
    assert await notes.transaction(lambda tx: "result") == "result"
    assert await notes.read(lambda tx: 7) == 7


async def test_each_way_to_run_a_statement_answers_as_promised(notes: Database) -> None:
    rows = [{"id": "a", "text": "1"}, {"id": "b", "text": "2"}]

    def work(tx: Transaction) -> list[object]:
        tx.send_many("insert_notes", [{"id": "c", "text": "3"}])
        tx.send_many("insert_notes", [])
        return [
            sorted(row["id"] for row in tx.fetch_many("insert_notes", rows)),
            tx.fetch_many("insert_notes", rows),
            tx.fetch_many("insert_notes", []),
            tx.execute("rename_note", id="a", text="new"),
            tx.execute("rename_note", id="absent", text="new"),
            tx.fetch_all("list_notes"),
            tx.fetch_one("note_by_id", id="absent"),
            tx.fetch_all("note_by_id", id="absent"),
        ]

    listed = [{"id": "a", "text": "new"}, {"id": "b", "text": "2"}, {"id": "c", "text": "3"}]
    assert await notes.transaction(work) == [["a", "b"], [], [], 1, 0, listed, None, []]


async def test_what_a_work_raises_undoes_it_and_comes_out(notes: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        await notes.transaction(fail_after_writing)

    assert await notes.read(count) == 0


async def test_a_failing_work_fails_alone(notes: Database) -> None:
    works = [fail_after_writing if number % 5 == 0 else add(str(number)) for number in range(100)]

    results = await asyncio.gather(*(notes.transaction(work) for work in works), return_exceptions=True)

    assert sum(isinstance(result, ZeroDivisionError) for result in results) == 20
    assert await notes.read(count) == 80


@pytest.mark.parametrize("send", [True, False])
async def test_a_statement_that_fails_names_itself(notes: Database, send: bool) -> None:
    await notes.transaction(add("a"))

    def work(tx: Transaction) -> None:
        run = tx.send if send else tx.execute
        run("insert_note", id="a", text="again")

    with pytest.raises(StoreError, match="insert_note"):
        await notes.transaction(work)


async def test_a_work_cannot_swallow_the_failure_of_a_statement(notes: Database) -> None:
    def work(tx: Transaction) -> None:
        tx.send("insert_note", id="ghost", text="")
        try:
            tx.fetch_all("broken")
        except StoreError:
            return

    with pytest.raises(StoreError, match="broken"):
        await notes.transaction(work)

    assert await notes.read(count) == 0


async def test_a_failed_transaction_leaves_the_next_one_alone(notes: Database) -> None:
    for number in range(5):
        with pytest.raises(StoreError):
            await notes.transaction(lambda tx: tx.fetch_all("broken"))
        await notes.transaction(add(str(number)))

    assert await notes.read(count) == 5


@pytest.mark.parametrize(
    "work",
    [
        lambda tx: tx.fetch_all("note_by_id"),
        lambda tx: tx.fetch_all("note_by_id", id="a", name="b"),
        lambda tx: tx.send("insert_notes"),
        lambda tx: tx.send_many("insert_notes", [{"id": "a", "text": "b"}, {"id": "c"}]),
        lambda tx: tx.fetch_many("note_by_id", [{"id": "a"}]),
    ],
)
async def test_wrong_parameters_are_refused(notes: Database, work: Callable[[Transaction], object]) -> None:
    with pytest.raises(TypeError, match="note"):
        await notes.transaction(work)


async def test_an_unknown_statement_is_refused_with_what_was_meant(notes: Database) -> None:
    with pytest.raises(LookupError, match="did you mean 'insert_note"):
        await notes.transaction(lambda tx: tx.send("insert_noet"))


async def test_a_read_cannot_write(notes: Database) -> None:
    with pytest.raises(StoreError, match="insert_note"):
        await notes.read(add("a"))

    assert await notes.read(count) == 0


async def test_a_read_is_one_snapshot_and_does_not_block_a_writer(notes: Database) -> None:
    def work(tx: Transaction) -> list[int]:
        before = count(tx)
        notes.transaction_blocking(add("meanwhile"))
        return [before, count(tx)]

    assert await notes.read(work) == [0, 0]
    assert await notes.read(count) == 1


def test_threads_and_event_loops_share_one_database(notes: Database) -> None:
    async def from_a_loop(name: int) -> None:
        await asyncio.gather(*(notes.transaction(add(f"{name}.{number}")) for number in range(50)))

    def from_a_thread(name: int) -> None:
        for number in range(20):
            notes.transaction_blocking(add(f"{name}.{number}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: asyncio.run(from_a_loop(name)), range(4)))
        list(pool.map(from_a_thread, range(4, 8)))

    assert notes.read_blocking(count) == 4 * 50 + 4 * 20


async def test_a_call_cancelled_before_its_turn_does_not_run(open_notes: OpenNotes, database_url: str) -> None:
    notes = open_notes(database_url, pool_size=1)
    started, release = threading.Event(), threading.Event()

    def occupy(tx: Transaction) -> None:
        started.set()
        assert release.wait(WAIT_SECONDS)

    occupied = asyncio.ensure_future(notes.transaction(occupy))
    await asyncio.to_thread(started.wait, WAIT_SECONDS)
    cancelled = asyncio.ensure_future(notes.transaction(add("ghost")))
    await asyncio.sleep(0)
    cancelled.cancel()
    release.set()
    await occupied

    assert await notes.transaction(count) == 0


async def test_stop_iteration_reaches_the_caller(notes: Database) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await notes.transaction(lambda tx: next(iter(tx.fetch_all("list_notes"))))


async def test_now_is_the_databases_clock_in_microseconds(notes: Database) -> None:
    before = SystemClock().now_us()

    row = await notes.transaction(lambda tx: tx.fetch_one("now"))

    assert row is not None
    assert before - 1_000_000 < row["now"] < SystemClock().now_us() + 1_000_000


async def test_a_frozen_clock_is_now(open_notes: OpenNotes, database_url: str) -> None:
    clock = FrozenClock(1_000_000)
    notes = open_notes(database_url, clock=clock)

    await notes.transaction(add("a"))
    clock.advance(seconds=1.5)
    await notes.transaction(lambda tx: tx.send_many("insert_notes", [{"id": "b", "text": ""}]))

    rows = await notes.read(lambda tx: [tx.fetch_one("note_by_id", id=id) for id in "ab"])
    assert [row and row["created_at"] for row in rows] == [1_000_000, 2_500_000]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.none() | TEXT, number=st.none() | WHOLE | st.booleans(), amount=st.none() | REAL)
def test_values_come_back_as_they_went(
    notes: Database, text: str | None, number: int | None, amount: float | None
) -> None:
    row = {"text": text, "number": number, "amount": amount}

    assert notes.read_blocking(lambda tx: tx.fetch_one("echo", **row)) == row
    assert notes.read_blocking(lambda tx: tx.fetch_many("echo_rows", [row] * 2)) == [row] * 2


def test_computed_values_have_the_same_types_on_both(notes: Database) -> None:
    for id in ("a", "bbb"):
        notes.transaction_blocking(add(id))

    row = notes.read_blocking(lambda tx: tx.fetch_one("kinds"))

    assert row is not None
    assert row == {"sum": 4, "truth": 1, "mean": 2.0, "alike": 0}
    assert [type(value) for value in row.values()] == [int, int, float, int]


def test_a_hint_reaches_this_process_at_once(notes: Database) -> None:
    heard: list[str] = []
    stop = notes.listen(heard.append)

    notes.notify("runs")
    assert "runs" in heard

    stop()
    heard.clear()
    notes.notify("runs")
    assert heard == []


def test_a_hint_reaches_other_processes(open_notes: OpenNotes, database_url: str) -> None:
    here, there = open_notes(database_url), open_notes(database_url)
    heard: list[str] = []
    there.listen(heard.append)
    if here.dialect == "postgres":
        wait_until(lambda: "*" in heard)  # it listens from now on

    here.transaction_blocking(add("a"))
    here.notify("runs")

    wait_until(lambda: ("*" if here.dialect == "sqlite" else "runs") in heard)


def test_a_listener_that_fails_does_not_silence_the_others(notes: Database, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    def fail(topic: str) -> None:
        raise ZeroDivisionError

    stop = notes.listen(fail)
    notes.listen(heard.append)
    notes.notify("runs")
    stop()

    assert "runs" in heard
    assert "a listener failed" in caplog.text


async def test_close_runs_what_is_queued_and_then_refuses(notes: Database, open_notes: OpenNotes) -> None:
    queued = [asyncio.ensure_future(notes.transaction(add(str(number)))) for number in range(20)]
    await asyncio.sleep(0)

    await asyncio.to_thread(notes.close)
    await asyncio.gather(*queued)
    notes.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await notes.transaction(count)
    with pytest.raises(StoreUnavailable, match="not open"):
        notes.read_blocking(count)

    notes.start()
    assert await notes.read(count) == 20


async def test_more_waiting_calls_than_the_bound_are_refused(
    open_notes: OpenNotes, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for driver in ("sqlite", "postgres"):
        monkeypatch.setattr(f"pilothouse.store.{driver}.MAX_WAITING", 3)
    notes = open_notes(database_url, pool_size=1)
    started, release = threading.Event(), threading.Event()

    def occupy(tx: Transaction) -> None:
        started.set()
        assert release.wait(WAIT_SECONDS)

    waiting = [asyncio.ensure_future(notes.transaction(occupy))]
    await asyncio.to_thread(started.wait, WAIT_SECONDS)
    waiting += [asyncio.ensure_future(notes.transaction(add(str(number)))) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="3 transactions wait") as refused:
        await notes.transaction(count)
    release.set()
    await asyncio.gather(*waiting)

    assert refused.value.retry_after_seconds == 1.0


def test_check_passes_while_the_database_answers(notes: Database) -> None:
    notes.check()


def test_a_work_whose_loop_has_closed_does_not_disturb_the_others(notes: Database) -> None:
    started, release = threading.Event(), threading.Event()

    def occupy(tx: Transaction) -> None:
        started.set()
        assert release.wait(WAIT_SECONDS)

    async def leave() -> None:
        task = asyncio.ensure_future(notes.transaction(occupy))
        await asyncio.to_thread(started.wait, WAIT_SECONDS)
        task.cancel()

    asyncio.run(leave())
    release.set()

    assert notes.transaction_blocking(count) == 0


@pytest.mark.parametrize(
    "url",
    ["", "pilothouse.db", "mysql://host/db", "sqlite:///", "sqlite:///:memory:", "sqlite://host/a", "sqlite:///a?b=c"],
)
def test_a_wrong_url_is_refused_with_a_right_one(url: str) -> None:
    with pytest.raises(ConfigError, match="sqlite"):
        open_database(url)


def test_without_its_driver_postgresql_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("psycopg", "pilothouse.store.postgres"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(ConfigError, match=r'pip install "pilothouse\[postgres\]"'):
        open_database("postgresql://localhost/db")


def test_a_mailbox_survives_a_future_that_is_done() -> None:
    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        mailbox = calls.Mailbox(loop)
        abandoned, wanted, failed = loop.create_future(), loop.create_future(), loop.create_future()
        abandoned.cancel()
        for future in (abandoned, wanted):
            mailbox.put(future, calls.Answer("value"))
        mailbox.put(failed, calls.Answer(None, KeyError("x")))
        mailbox.wake()
        results = await asyncio.gather(wanted, failed, return_exceptions=True)
        return [repr(result) for result in results]

    assert asyncio.run(scenario()) == ["'value'", "KeyError('x')"]
