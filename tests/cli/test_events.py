"""`events tail`: from all processes, filtered, from any place on; and typed events out of a log file."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Shell
from tests.patience import WAIT_SECONDS
from tests.postgres_server import PostgresServer

APP = """
from pilothouse import App, Context, FatalError
app = App("shop")

@app.agent
async def order(ctx: Context) -> int:
    return await ctx.step("look", lambda: 1)

@app.agent
async def bad(ctx: Context) -> None:
    raise FatalError("no such order")
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Two runs have ended, and what they told is in `log.jsonl`."""
    shell = Shell(tmp_path_factory.mktemp("shop"))
    shell.write("agents.py", APP)
    work(shell)
    return shell


def work(shell: Shell) -> None:
    worker = shell.start("worker", "agents:app", LOG_DESTINATION="file:log.jsonl", LOG_LEVEL="debug", LOG_FORMAT="json")
    try:
        until(lambda: (shell.folder / "pilothouse.db").exists() and shell("agents", "list", "--json").code == 0)
        until(lambda: shell("submit", "order", "{}").code == 0)
        assert shell("submit", "bad", "{}").code == 0
        until(lambda: (shell.folder / "log.jsonl").read_text().count('"run.settled"') >= 2)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=WAIT_SECONDS)


def until(look: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def told(shell: Shell, *arguments: str) -> list[dict[str, Any]]:
    said = shell("events", "tail", "--json", *arguments)
    assert said.code == 0, said.err
    return [json.loads(line) for line in said.out.splitlines()]


def test_the_record_is_filtered_and_gone_on_with(shop: Shell) -> None:
    first = told(shop, "--after", "0", "--name", "run.*", "--agent", "order", "-n", "2")
    assert [event["action"] for event in first] == ["run.submitted", "run.claimed"]
    assert {event["agent"] for event in first} == {"order"}
    (ended,) = told(shop, "--after", str(first[-1]["seq"]), "--run", first[0]["entity_id"], "-n", "1")
    assert (ended["action"], ended["agent"]) == ("run.succeeded", "order")
    (failed,) = told(shop, "--after", "0", "--name", "run.failed", "-n", "1")
    assert failed["agent"] == "bad"
    shown = shop("events", "tail", "--after", "0", "--name", "run.failed", "-n", "1").out
    assert f"run {failed['entity_id']}.1 (bad)" in shown


def test_a_log_file_has_every_typed_event_through_a_rename(shop: Shell) -> None:
    log = shop.folder / "log.jsonl"
    (step,) = told(shop, "--file", "log.jsonl", "--after", "0", "--level", "debug", "--name", "step.*", "-n", "1")
    assert (step["message"], step["context"]["step"]) == ("step.executed", "look")
    (settled,) = told(shop, "--file", "log.jsonl", "--after", "0", "--agent", "bad", "-n", "1")
    assert (settled["message"], settled["context"]["error"]) == ("run.settled", "FatalError")

    seen: list[str] = []
    tail = shop.start("events", "tail", "--file", "log.jsonl", "--json", "--after", "0", "--name", "run.settled")
    assert tail.stdout is not None
    with tail.stdout as out:
        reading = threading.Thread(target=seen.extend, args=(out,))
        reading.start()
        until(lambda: len(seen) == 2)
        log.rename(shop.folder / "log.1")
        work(shop)
        until(lambda: len(seen) == 4)
        tail.send_signal(signal.SIGINT)
        assert tail.wait(timeout=WAIT_SECONDS) == 130
        reading.join()
    assert len({json.loads(line)["context"]["run_id"] for line in seen}) == 4


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("--file", "nothing.jsonl"), "LOG_DESTINATION=file:PATH"),
        (("--file", "log.jsonl", "--after", "7"), "of --after only 0"),
        (("--level", "loud"), "use one of debug, info"),
    ],
)
def test_what_cannot_be_followed_is_told(tmp_path: Path, arguments: tuple[str, ...], advice: str) -> None:
    said = Shell(tmp_path)("events", "tail", *arguments)

    assert said.code == 1
    assert advice in said.err


def test_a_restart_of_the_database_leaves_nothing_out(tmp_path: Path, private_postgres: PostgresServer) -> None:
    shell, chosen = Shell(tmp_path), {"DATABASE_URL": private_postgres.url()}
    assert shell("db", "migrate", **chosen).code == 0
    tail = shell.start("events", "tail", "--after", "0", "--name", "key.*", "-n", "2", "--json", **chosen)
    seen: list[str] = []
    assert tail.stdout is not None
    with tail.stdout as out:
        reading = threading.Thread(target=seen.extend, args=(out,))
        reading.start()
        shell("keys", "create", "first", **chosen)
        until(lambda: len(seen) == 1)
        private_postgres.stop()
        until(lambda: len(seen) == 2)
        private_postgres.start()
        shell("keys", "create", "second", **chosen)
        assert tail.wait(timeout=WAIT_SECONDS) == 0
        reading.join()

    assert "the database is away" in seen[1]
    assert [json.loads(line)["action"] for line in (seen[0], seen[2])] == ["key.created", "key.created"]
