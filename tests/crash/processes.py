"""Real processes of the shipped command on one database, and what is seen of them from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from pilothouse.control import agents, checks, runs
from pilothouse.control.runs import Request, Submitted
from pilothouse.errors import StoreUnavailable
from pilothouse.store.database import Database, Row, open_database
from pilothouse.store.migrations import migrate
from tests.crash.agents_under_test import app

T = TypeVar("T")

WAIT_SECONDS = 60.0
LEASE_SECONDS = 1.5


def eventually(look: Callable[[], T | None], what: str, *, seconds: float = WAIT_SECONDS) -> T:
    """The first answer of `look` that is true. Fails with `what` when none comes in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            answer = look()
        except StoreUnavailable:
            answer = None
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds:.0f} s in vain for: {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Fleet:
    """The processes of one test; all are gone when it is closed."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.database_url = database_url
        self.evidence, self.gate = folder / "evidence.txt", folder / "gate"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started: list[subprocess.Popen[bytes]] = []
        self.db: Database = open_database(database_url)
        self.db.start()
        migrate(self.db)
        cards = [agent.card(app.name, 300.0) for agent in app.agents.values()]
        self.db.transaction_blocking(lambda tx: agents.register(tx, cards, principal="test"))

    def start(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        variables = os.environ | {
            "DATABASE_URL": self.database_url,
            "PILOTHOUSE_APP": "tests.crash.agents_under_test:app",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PILOTHOUSE_LEASE_SECONDS": str(LEASE_SECONDS),
            "AGENT_HEARTBEAT_INTERVAL": "0.3",
            "PILOTHOUSE_CHORE_INTERVAL_MS": "200",
            "EVIDENCE_FILE": str(self.evidence),
            "GATE_FILE": str(self.gate),
            **environment,
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pilothouse", *arguments],
                cwd=self.folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        self._started.append(process)
        return process

    def start_worker(self, name: str, **environment: str) -> subprocess.Popen[bytes]:
        """A worker that has registered."""
        process = self.start(name, "worker", "--lanes", "critical=1,normal=6,low=1", "--shared", "0", **environment)
        eventually(lambda: self.worker_of(process.pid), f"{name} to register")
        return process

    def worker_of(self, pid: int, state: str = "running") -> Row | None:
        rows = self.db.read_blocking(lambda tx: tx.fetch_all("list_workers", limit=100))
        return next((row for row in rows if row["pid"] == pid and row["state"] == state), None)

    def submit(self, agent: str, count: int = 1, **input: Any) -> list[str]:
        requests = [Request(agent, input, principal="test") for _ in range(count)]
        answers = self.db.transaction_blocking(lambda tx: runs.submit_runs(tx, requests))
        self.db.notify(runs.WAKE_RUNS)
        return [answer.id for answer in answers if isinstance(answer, Submitted)]

    def states(self, ids: list[str]) -> Counter[str]:
        rows = self.db.read_blocking(lambda tx: tx.fetch_many("child_states", [{"id": id} for id in ids]))
        return Counter(row["state"] for row in rows)

    def run(self, run_id: str) -> Row:
        return self.db.read_blocking(lambda tx: runs.run_in(tx, run_id))

    def attempts(self, run_id: str) -> list[Row]:
        return self.db.read_blocking(lambda tx: tx.fetch_all("attempts_of_run", run_id=run_id))

    def until_ended(self, ids: list[str], *, seconds: float = WAIT_SECONDS) -> Counter[str]:
        def look() -> Counter[str] | None:
            states = self.states(ids)
            return states if states.keys() <= {"succeeded", "failed", "cancelled"} else None

        return eventually(look, f"all of {len(ids)} runs to end", seconds=seconds)

    def executions(self) -> list[tuple[str, str, int]]:
        """(run id, step, attempt) of every execution, in order."""
        if not self.evidence.exists():
            return []
        lines = self.evidence.read_text().splitlines()
        return [(run_id, step, int(attempt)) for run_id, step, attempt in (line.split() for line in lines)]

    def executed_after_finished(self) -> list[tuple[str, str, int]]:
        """Executions by an attempt later than the one that wrote the step's checkpoint: there may be none."""
        rows = self.db.read_blocking(lambda tx: tx.fetch_all("step_writers"))
        finished = {(row["run_id"], row["key"]): row["attempt"] for row in rows}
        return [each for each in self.executions() if each[2] > finished.get(each[:2], each[2])]

    def broken_invariants(self) -> list[checks.Verdict]:
        verdicts = asyncio.run(checks.check(self.db, grace_us=int(LEASE_SECONDS * 4_000_000)))
        return [verdict for verdict in verdicts if not verdict.holds]

    def wait(self, name: str, *, seconds: float = WAIT_SECONDS) -> int:
        return self.processes[name].wait(seconds)

    def log_of(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
        self.db.close()


def answers(url: str) -> int:
    """The status of an answer, 0 where none comes."""
    try:
        return int(httpx2.get(url, timeout=5).status_code)
    except httpx2.TransportError:
        return 0
