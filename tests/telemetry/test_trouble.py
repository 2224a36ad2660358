"""Servers that hang, reset, refuse or take only little: no run waits for one, and there is one warning."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pilothouse import App, Context
from pilothouse.telemetry import courier
from pilothouse.telemetry.courier import Courier, Destination, Refused, Terms, dropped_so_far
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.logs import close_logs, configure_logs, get_logger
from tests.patience import WAIT_SECONDS
from tests.telemetry.receivers import Manner, Receiver, receiving
from tests.telemetry.working import until, working

RUNS = 20


def app() -> App:
    app = App("busy")

    @app.agent
    async def noop(ctx: Context) -> None:
        """Nothing."""

    return app


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.telemetry.http.ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(courier, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(courier, "LONGEST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr("pilothouse.telemetry.setup.CLOSE_SECONDS", 0.2)


@pytest.fixture(params=["hangs", "resets", "500", "400"])
def trouble(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    manner: Manner = request.param
    with receiving(manner) as receiver:
        yield receiver


@pytest.mark.parametrize("setting", ["otlp_endpoint", "mlflow_tracking_uri"])
async def test_a_server_in_trouble_holds_no_run_up_and_is_warned_of_once(
    trouble: Receiver, setting: str, tmp_path: Path
) -> None:
    spans_before = dropped_so_far().get("spans", 0)
    chosen: dict[str, Any] = {setting: trouble.url}
    async with working(app(), tmp_path, **chosen) as work:
        first = await work.submit("noop")
        await asyncio.to_thread(trouble.arrived.wait, 30)
        runs = [await work.submit("noop") for _ in range(RUNS)]
        ended = [await work.ended(run) for run in (first, *runs)]  # while the server has not answered anything
        if trouble.manner in ("resets", "500"):
            await until(lambda: len(trouble.asked) > 2)  # it is tried again

    assert {run["state"] for run in ended} == {"succeeded"}
    assert not trouble.taken
    (warning,) = work.logged("export.failing")
    assert (warning["level"], warning["context"]["destination"].startswith(trouble.url)) == ("warning", True)
    assert dropped_so_far()["spans"] - spans_before >= 3 * RUNS
    assert not work.logged("export.recovered")


async def test_what_arrives_again_is_told_once_too(tmp_path: Path) -> None:
    with receiving("500") as receiver:
        async with working(app(), tmp_path, otlp_endpoint=receiver.url) as work:
            await work.ended(await work.submit("noop"))
            await until(lambda: len(receiver.asked) > 2)
            receiver.manner = "good"
            await work.ended(await work.submit("noop"))
            await until(lambda: work.logged("export.recovered"))

    assert len(work.logged("export.failing")) == len(work.logged("export.recovered")) == 1
    assert len([span for span in receiver.spans if span.name == "invoke_agent noop"]) == 2


# --- couriers ------------------------------------------------------------------------------------


def test_a_full_queue_drops_the_oldest_and_counts_what_it_weighs() -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    taken: list[int] = []

    def deliver(numbers: Sequence[int]) -> None:
        begun.set()
        may_go_on.wait()
        taken.extend(numbers)

    slow = Courier("numbers", Destination("somewhere", print), deliver, Terms(limit=5, batch=1))
    slow.weigh = lambda number: number
    slow.offer(1)
    begun.wait()
    for number in range(2, 11):
        slow.offer(number)
    may_go_on.set()
    slow.close(10)

    assert taken == [1, 6, 7, 8, 9, 10]
    assert dropped_so_far()["numbers"] == 2 + 3 + 4 + 5


def test_a_batch_that_is_too_large_goes_in_halves() -> None:
    with receiving("too small") as receiver:
        configure_logs("info", "json", receiver.url)
        log = get_logger("t")
        for number in range(60):
            log.info("a line", number=number)
        close_logs()
        configure_logs()

    taken = [json.loads(line) for each in receiver.taken for line in each.body.splitlines()]
    assert [line["context"]["number"] for line in taken] == list(range(60))
    assert len(receiver.asked) > len(receiver.taken)


def test_what_cannot_be_put_into_words_ends_no_thread() -> None:
    told: list[Event] = []
    taken: list[object] = []

    def deliver(things: Any) -> None:
        (thing,) = things
        if thing == "bad":
            raise KeyError("what")
        if thing == "refused":
            raise Refused("no")
        taken.append(thing)

    carrier: Courier[str] = Courier("words", Destination("x", told.append), deliver, Terms(limit=50, batch=1))
    for word in ("bad", "good", "refused", "better"):
        carrier.offer(word)
    carrier.close(10)

    assert taken == ["good", "better"]
    assert dropped_so_far()["words"] == 2


# --- logs ----------------------------------------------------------------------------------------


def test_logs_go_to_a_server_in_batches(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    with receiving() as receiver:
        configure_logs("info", "pretty", f"file:{file}, {receiver.url}/ingest?source=a", token="secret")
        log = get_logger("t")
        for number in range(1200):
            log.info("a line", number=number, trace_id="ab")
        close_logs()
        configure_logs()

    lines = [json.loads(line) for each in receiver.taken for line in each.body.splitlines()]
    assert [line["context"]["number"] for line in lines] == list(range(1200))
    assert set(lines[0]) == {"timestamp", "level", "logger", "trace_id", "message", "context"}
    assert 1 < len(receiver.taken) < 20
    assert {each.path for each in receiver.taken} == {"/ingest?source=a"}
    assert receiver.taken[0].headers["authorization"] == "Bearer secret"
    assert receiver.taken[0].headers["content-type"] == "application/x-ndjson"
    assert len(file.read_text().splitlines()) == 1200
    assert not file.read_text().startswith("{"), "each destination has a form of its own"


@pytest.mark.parametrize("manner", ["hangs", "resets", "500"])
def test_a_log_server_in_trouble_is_told_of_on_standard_error_alone(
    manner: Manner, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "CLOSE_SECONDS", 0.2)
    with receiving(manner) as receiver:
        configure_logs("info", "json", receiver.url)
        log = get_logger("t")
        log.info("the first")
        assert receiver.arrived.wait(30)
        for number in range(15_000):  # more than are kept; the server has not answered
            log.info("a line", number=number)
        close_logs()
        configure_logs()

    (line,) = capfd.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["message"], told["level"], told["context"]["what"]) == ("export.failing", "warning", "log lines")
    assert dropped_so_far()["log lines"] >= 5_000


def test_a_rotated_file_is_followed(tmp_path: Path) -> None:
    file, kept = tmp_path / "log.jsonl", tmp_path / "log.1"
    configure_logs("info", "json", f"file:{file}")
    log = get_logger("t")
    log.info("before")
    file.rename(kept)
    written, deadline = 1, time.monotonic() + WAIT_SECONDS
    while not file.exists() and time.monotonic() < deadline:
        log.info("after")
        written += 1
    log.info("later")
    configure_logs()

    assert [json.loads(line)["message"] for line in file.read_text().splitlines()] == ["after", "later"]
    assert len(kept.read_text().splitlines()) == written - 1, "no line is lost between the two"
