"""Every way to write an agent, with its worker killed after every call: the same answer, nothing paid or done twice."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from pilothouse.control import agents, attempts
from pilothouse.control.runs import Request, Submitter, get_run
from pilothouse.domain.retries import Backoff
from pilothouse.store.database import Database, Transaction
from tests.conformance.desks import ANSWER, PROMPT, SCRIPT, app
from tests.conformance.lives import live
from tests.llm.conftest import Serving, provider, start_provider

__all__ = ["provider", "start_provider"]

LIFE_SECONDS = 60.0
SEEN = ("OPENAI_BASE_URL", "OPENAI_API_KEY", "EVIDENCE_FILE")
MOST_DEATHS = 20
EFFECTS = {"lookup": 1, "send": 1}

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["tests.conformance.lives", "pydantic_ai.models.openai"])


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "model_calls", "effects"),
    [
        ("handler", 3, EFFECTS),
        ("plain-handler", 3, EFFECTS),
        ("workflow", 3, EFFECTS),
        ("pydantic-ai", 3, EFFECTS),
        ("openai-agents", 3, EFFECTS),
        ("langgraph", 3, EFFECTS),
        ("program", 2, {}),
    ],
)
def test_nothing_is_paid_or_done_twice(
    database: Database,
    provider: Serving,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    agent: str,
    model_calls: int,
    effects: dict[str, int],
) -> None:
    provider.script(*SCRIPT)
    evidence = tmp_path / "evidence"
    monkeypatch.setenv("EVIDENCE_FILE", str(evidence))
    monkeypatch.setattr(attempts, "LOSS_BACKOFF", Backoff(first_seconds=0.0))
    cards = [each.card(app.name, 300.0) for each in app.agents.values()]
    database.transaction_blocking(lambda tx: agents.register(tx, cards, principal="test"))
    run_id = asyncio.run(submit(database, agent))

    deaths = 0
    while not ended_by_a_life(database, run_id):
        deaths += 1
        assert deaths <= MOST_DEATHS, asyncio.run(get_run(database, run_id))
        database.transaction_blocking(bury)

    run = asyncio.run(get_run(database, run_id))
    assert run["state"] == "succeeded", run["error"]
    assert ANSWER in run["output"]
    assert deaths == model_calls + sum(effects.values())
    assert provider.requests == model_calls
    done = evidence.read_text().split() if evidence.exists() else []
    assert Counter(done) == effects


async def submit(db: Database, agent: str) -> str:
    inputs = {"langgraph": {"messages": [{"role": "user", "content": PROMPT}]}}
    submitter = Submitter(db)
    request = Request(agent, inputs.get(agent, {"prompt": PROMPT}), principal="test")
    submitted = await submitter.submit(request)
    await submitter.close()
    return submitted.id


def ended_by_a_life(db: Database, run_id: str) -> bool:
    """One worker's life; False where it was killed after its first call."""
    seen = {name: os.environ[name] for name in SEEN}
    life = forks.Process(target=live, args=(db.url, run_id, 1, seen))
    life.start()
    life.join(LIFE_SECONDS)
    code = life.exitcode
    if code is None:
        life.kill()
    assert code in (0, -signal.SIGKILL), code
    return code == 0


def bury(tx: Transaction) -> None:
    """What the janitor does once a lease has run out, without waiting for it."""
    for row in tx.fetch_all("list_workers", limit=100):
        if row["state"] == "running":
            tx.execute("expire_worker", id=row["id"])
    attempts.reap_workers(tx, principal="test")
