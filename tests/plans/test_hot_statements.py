"""The hot statements use their indexes, and touch as many rows as they return, however many others there are."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest

from pilothouse.control.attempts import claim_runs
from pilothouse.store.database import Database, Row, Transaction, open_database
from pilothouse.store.migrations import migrate
from tests.control.steps import (
    card,
    claim,
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

SCAN = re.compile(r"SCAN (runs|due|attempts)\b(?! USING)|Seq Scan on (runs|attempts)")
HOT = (
    *("pick_runs", "next_due", "oldest_due", "cancelling_runs", "expired_workers", "list_dead"),
    *("list_runs", "list_runs_of_agent", "list_few_runs_of_agent", "list_seldom_runs", "list_running_runs"),
    *("list_runs_of_tenant", "list_children", "floor_of_runs", "floor_of_agent", "floor_of_tenant"),
    *("floor_of_seldom_runs", "balances_of_live_runs", "inputs_of_runs"),
)


@pytest.fixture
def crowded(database: Database) -> Database:
    """Thousands of runs: of another agent, ended ones, delayed ones, and some that are due."""
    register(database, card("echo"), card("other"))
    worker = start_worker(database)
    for _ in range(6):
        submit_all(database, *(request() for _ in range(500)))
        settle(database, *(ended(run) for run in claim(database, worker, wanted=demand(normal=500))))
    for _ in range(4):
        submit_all(database, *(request("other") for _ in range(500)))
        submit_all(database, *(request(available_at=2**60, priority=9) for _ in range(500)))
    submit_all(database, *(request() for _ in range(20)))
    analyze = "ANALYZE"
    database.administer(lambda tx: tx.execute(analyze))
    return database


def test_a_claim_behind_thousands_of_others_takes_what_is_due(crowded: Database) -> None:
    worker = start_worker(crowded)

    claimed = crowded.transaction_blocking(lambda tx: claim_runs(tx, worker, demand(normal=50), [version_of("echo")]))

    assert len(claimed) == 20


def test_a_hot_statement_never_scans_the_runs(crowded: Database) -> None:
    plans = {name: explain(crowded, name) for name in HOT}

    scans = {name: "\n".join(plan) for name, plan in plans.items() if any(map(SCAN.search, plan))}
    assert not scans


def test_suspended_runs_are_in_no_index_of_the_claim(database: Database) -> None:
    from pilothouse.control.waits import Wait

    register(database, card("echo"))
    worker = start_worker(database)
    for _ in range(4):
        submit_all(database, *(request() for _ in range(500)))
        runs = claim(database, worker, wanted=demand(normal=500))
        settle(database, *(ended(run, "suspended", waits=(Wait("signal", "go", "g"),)) for run in runs))
    due = submit(database)

    (row,) = database.administer(
        lambda tx: tx.fetch_all("SELECT count(*) AS found FROM runs WHERE available_at IS NOT NULL")
    )

    assert row["found"] == 1
    assert [run.run_id for run in claim(database, worker)] == [due]


ALERTS = {
    "live_alerts": "alerts_live",
    "firing_counts": "alerts_live",
    "untold_alerts": "alerts_live",
    "alert_flaps": "alerts_resolved",
    "held_notices": "alert_notices_held",
    "sent_messages": "alert_notices_sent",
    "pending_by_agent": "approvals_pending",
    "unknown_by_tool": "effects_open",
    "lost_workers": "workers_lost",
    "runaways_by_agent": "waits_by_name",
}
"""Statements of each look at the alerts, and the index of what is open or recent that each reads."""


def test_a_look_at_the_alerts_never_reads_what_is_over(tmp_path: Path) -> None:
    """On SQLite, whose plans do not depend on what the tables hold."""
    with closing(open_database(f"sqlite:///{tmp_path}/plans.db")) as db:
        db.start()
        migrate(db)
        plans = {name: explain(db, name) for name in ALERTS}

    for name, index in ALERTS.items():
        assert any(f"INDEX {index}" in line for line in plans[name]), f"{name}: {plans[name]}"


VALUES = {
    "room": '\'[{"lane":"normal","reserved":5,"rank":1}]\'',
    "agents": '\'[{"name":"echo","oldest":1,"newest":1}]\'',
    "lanes": "'[\"normal\"]'",
    "full_keys": "'[]'",
    "held_tenants": "'[]'",
    "shared": "0",
    "most": "5",
    "ageing_us": "60000000",
    "now": "1900000000000000",
    "lane": "'normal'",
    "agent": "'echo'",
    "worker_id": "'w'",
    "recipient": "'email:a'",
    "since": "1",
    "limit": "10",
    "after": "NULL",
    "tenant": "'acme'",
    "error_type": "NULL",
    "before": "'~'",
    "floor": "''",
    "state": "'failed'",
    "parent_id": "'p'",
    "version": "NULL",
    "text": "NULL",
    "created_after": "NULL",
    "created_before": "NULL",
    "window": "1000",
    "first": "'01a1'",
    "until": "1900000000000000",
}
NO_SCANS = "SET LOCAL enable_seqscan = off"
ROWS = "(SELECT 'a' AS id UNION ALL SELECT 'b')"
QUEUES = "(SELECT 'echo' AS agent, 'normal' AS lane)"


def explain(db: Database, name: str, *, without_scans: bool = False) -> list[str]:
    """The plan of a statement as it stands in its file, with literals for its parameters.

    `without_scans`: a server scans only what no index serves, however small the table is.
    """
    prefix = "EXPLAIN QUERY PLAN " if db.dialect == "sqlite" else "EXPLAIN "
    sql = re.sub(r"(?<!:):([a-z_]+)", lambda match: VALUES[match[1]], source_of(db, name))
    sql = sql.replace("@rows(id text)", ROWS).replace("@rows(agent text, lane text)", QUEUES)

    def work(tx: Transaction) -> list[Row]:
        if without_scans and db.dialect == "postgres":
            tx.execute(NO_SCANS)
        return tx.fetch_all(prefix + sql)

    rows = db.administer(work)
    return [str(row.get("detail") or row.get("QUERY PLAN")) for row in rows]


def source_of(db: Database, name: str) -> str:
    from importlib.resources import files

    folder = files("pilothouse.store").joinpath("sql")
    blocks: dict[str, str] = {}
    for file in sorted(folder.iterdir(), key=lambda each: each.name.count(".")):
        if file.name.endswith(".sql") and file.name.split(".")[1] in ("sql", db.dialect):
            for block in re.split(r"^-- name: ", file.read_text("utf-8"), flags=re.MULTILINE)[1:]:
                title, _, body = block.partition("\n")
                blocks[title.strip()] = "\n".join(line for line in body.splitlines() if not line.startswith("--"))
    return blocks[name]
