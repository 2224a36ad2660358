"""Concurrency limits: per agent and per key, whoever claims, however many claim at once."""

from __future__ import annotations

import threading
from collections import Counter

from pilothouse.clock import new_id
from pilothouse.control import attempts, timeline, workers
from pilothouse.control.attempts import ClaimedRun
from pilothouse.control.concurrency import AgentVersion
from pilothouse.control.workers import WorkerCard
from pilothouse.domain.lanes import Demand
from pilothouse.store.database import Database
from tests.control.steps import (
    LEASE_US,
    card,
    demand,
    ended,
    register,
    request,
    settle,
    start_worker,
    submit,
    submit_all,
    version_of,
)

NARROW = AgentVersion("narrow", 1, 1, "f", max_running=3)
KEYED = AgentVersion("keyed", 1, 1, "f", max_running_per_key=2)


def claim(db: Database, worker: str, *agents: AgentVersion, wanted: Demand | None = None) -> list[ClaimedRun]:
    return db.transaction_blocking(lambda tx: attempts.claim_runs(tx, worker, wanted or demand(), agents))


def prepare(db: Database) -> tuple[str, str]:
    register(
        db, card("narrow", max_running=3), card("keyed", max_running_per_key=2), card("echo"), card("low", lane="low")
    )
    return start_worker(db), start_worker(db)


def keys_of(db: Database, claimed: list[ClaimedRun]) -> Counter[str]:
    rows = (db.read_blocking(lambda tx, id=run.run_id: tx.fetch_one("run_by_id", id=id)) for run in claimed)  # type: ignore[misc]
    return Counter(row["concurrency_key"] for row in rows if row is not None)


def test_an_agent_runs_at_most_so_often_on_all_workers_together(database: Database) -> None:
    one, two = prepare(database)
    submit_all(database, *(request("narrow") for _ in range(8)))

    first = claim(database, one, NARROW, wanted=demand(normal=2))
    second = claim(database, two, NARROW)
    third = claim(database, one, NARROW)
    settle(database, ended(first[0]), ended(second[0], "failed"))
    fourth = claim(database, two, NARROW)

    assert [len(claimed) for claimed in (first, second, third, fourth)] == [2, 1, 0, 2]


def test_a_key_runs_at_most_so_often_and_holds_up_no_other(database: Database) -> None:
    one, two = prepare(database)
    for key in ("a", "b", "c"):
        submit_all(database, *(request("keyed", concurrency_key=key) for _ in range(20)))
    submit_all(database, *(request("keyed") for _ in range(3)))

    claimed = claim(database, one, KEYED, wanted=demand(normal=50))
    again = claim(database, two, KEYED, wanted=demand(normal=50))
    settle(database, *(ended(run) for run in claimed))
    following = claim(database, two, KEYED, wanted=demand(normal=5))

    assert keys_of(database, claimed) == {"a": 2, "b": 2, "c": 2, None: 3}
    assert again == []
    assert keys_of(database, following) == {"a": 2, "b": 2, "c": 1}


def test_a_limited_agent_leaves_the_slots_to_the_others(database: Database) -> None:
    one, _ = prepare(database)
    submit_all(database, *(request("narrow", priority=9) for _ in range(30)))
    submit_all(database, *(request("echo") for _ in range(30)), *(request("low") for _ in range(5)))
    agents = (NARROW, version_of("echo"), version_of("low"))

    claimed = claim(database, one, *agents, wanted=demand(normal=10, low=1, shared=2))

    assert Counter(run.agent for run in claimed)["narrow"] == 3
    assert Counter(run.lane for run in claimed) == {"normal": 12, "low": 1}


def test_claims_at_once_do_not_pass_a_limit(database: Database) -> None:
    """Counted here are runs whose claim is done and whose settle has not begun: never more than really run."""
    workers = [*prepare(database), start_worker(database)]
    submit_all(database, *(request("narrow", concurrency_key=f"k{n % 2}") for n in range(120)))
    limited = AgentVersion("narrow", 1, 1, "f", max_running=3, max_running_per_key=2)
    lock, running = threading.Lock(), Counter[str]()
    seen: list[tuple[int, int]] = []

    def work(worker: str) -> None:
        while is_left(database):
            claimed = claim(database, worker, limited, wanted=demand(normal=2))
            keys = keys_of(database, claimed)
            with lock:
                running.update(keys)
                seen.append((running.total(), max(running.values(), default=0)))
            keys_of(database, claimed)  # takes its time, so that others claim meanwhile
            with lock:
                running.subtract(keys)
            settle(database, *(ended(run) for run in claimed))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert max(total for total, _ in seen) <= 3
    assert max(most for _, most in seen) <= 2
    assert len(seen) >= 40, "hardly any claims: this shows nothing"


def is_left(db: Database) -> bool:
    queue = {"lane": "normal", "agent": "narrow"}
    return bool(db.read_blocking(lambda tx: tx.fetch_many("oldest_due", [queue])))


async def test_why_names_the_limit(database: Database) -> None:
    one, _ = prepare(database)
    live = WorkerCard(new_id(), "host", 1, "tests", "0", [NARROW, KEYED], {})
    database.transaction_blocking(lambda tx: workers.register(tx, live, [], lease_us=LEASE_US))
    submit_all(database, *(request("narrow") for _ in range(3)), *(request("keyed", concurrency_key="a") for _ in "ab"))
    claim(database, one, NARROW, KEYED)
    left, kept = submit(database, "narrow"), submit(database, "keyed", concurrency_key="a")

    by_agent, by_key = await timeline.why(database, left), await timeline.why(database, kept)

    assert by_agent["reasons"] == ["3 runs of agent 'narrow' run already, and max_running is 3"]
    assert by_key["reasons"] == ["2 runs of its concurrency key 'a' run already, and max_running_per_key is 2"]
