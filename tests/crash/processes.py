"""Real processes of the shipped command on one database, and what is seen of them from outside."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx2
import psutil

from pilothouse.control import agents, checks, runs
from pilothouse.control.runs import Request, Submitted
from pilothouse.errors import StoreUnavailable
from pilothouse.store.database import Database, Row, open_database
from pilothouse.store.migrations import migrate
from tests.crash.agents_under_test import app
from tests.patience import WAIT_SECONDS

T = TypeVar("T")

LEASE_SECONDS = 2.0
SURE_LEASE = {"PILOTHOUSE_LEASE_SECONDS": "30"}
"""For a worker that must not lose its lease, however busy the machine is."""

LANES = ("--lanes", "critical=1,normal=6,low=1", "--shared", "0")
ROOT = Path(__file__).parents[2]
TETHER = Path(__file__).with_name("tethered.py")
LOG_SHOWN = 3000


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


class Execution(NamedTuple):
    """A line of evidence: this process has executed this step as part of this attempt."""

    run_id: str
    step: str
    attempt: int
    process_id: int


class Fleet:
    """The processes of one test; all are gone when it is closed."""

    def __init__(self, folder: Path, database_url: str, *, direct_url: str | None = None) -> None:
        self.folder = folder
        self.database_url, self.direct_url = database_url, direct_url
        self.evidence, self.gate = folder / "evidence.txt", folder / "gate"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.db: Database = open_database(database_url, direct_url=direct_url)
        self.db.start()
        migrate(self.db)
        cards = [agent.card(app.name, 300.0) for agent in app.agents.values()]
        self.db.transaction_blocking(lambda tx: agents.register(tx, cards, principal="test"))

    # --- processes -------------------------------------------------------------------------

    def start(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pilothouse", *arguments]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-IS", str(TETHER), str(os.getpid()), *command],
                cwd=self.folder,
                env=os.environ | self.environment() | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def environment(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.database_url,
            **({"DIRECT_URL": self.direct_url} if self.direct_url else {}),
            "PILOTHOUSE_APP": "tests.crash.agents_under_test:app",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
            "PILOTHOUSE_LEASE_SECONDS": str(LEASE_SECONDS),
            "AGENT_HEARTBEAT_INTERVAL": "0.3",
            "ENGINE_TICK_INTERVAL_MS": "100",
            "PILOTHOUSE_CHORE_INTERVAL_MS": "200",
            "LOG_FORMAT": "json",
            "EVIDENCE_FILE": str(self.evidence),
            "GATE_FILE": str(self.gate),
        }

    def start_worker(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """A worker that has registered."""
        process = self.start(name, "worker", *LANES, *arguments, **environment)
        eventually(lambda: self.worker_of(process.pid), f"{name} to register")
        return process

    def start_api(self, name: str = "api", *arguments: str, **environment: str) -> str:
        """The URL of an API that answers."""
        self.start(name, "api", "--port", "0", *arguments, **environment)
        announced = f"{name} to say where it is"
        url = eventually(lambda: self.log_of(name).partition("is up at ")[2].partition("\n")[0], announced)
        eventually(lambda: answers(f"{url}/health") == 200, f"{name} to answer")
        return url

    def wait(self, name: str, *, seconds: float = WAIT_SECONDS) -> int:
        return self.processes[name].wait(seconds)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.wait(name)

    def storm(self, names: Sequence[str], arguments: Sequence[str], *, kills: int, executions: int) -> None:
        """Kills one worker after the other, any of `names`, each after so many more executions, and starts it anew."""
        seed = random.randrange(2**32)
        sys.stdout.write(f"seed {seed}\n")  # shown when the test fails
        chance = random.Random(seed)
        for _ in range(kills):
            wanted = len(self.executions()) + executions
            eventually(lambda wanted=wanted: len(self.executions()) > wanted, "work between two kills")  # type: ignore[misc]
            name = chance.choice(names)
            self.kill(name)
            self.start(name, "worker", *arguments)

    def log_of(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        for process in self._descendants():
            process.kill()
        for name, started in self.processes.items():
            started.kill()
            started.wait()
            sys.stdout.write(f"--- {name}, exit code {started.returncode}\n{self.log_of(name)[-LOG_SHOWN:]}\n")
        self.db.close()

    def _descendants(self) -> list[psutil.Process]:
        """What this fleet has started, and what those have started, even where their parent is gone by now."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("EVIDENCE_FILE") == str(self.evidence)
        except psutil.Error:
            return False

    # --- what the database says ------------------------------------------------------------

    def workers(self) -> list[Row]:
        return self.db.read_blocking(lambda tx: tx.fetch_all("list_workers", limit=1000))

    def worker_of(self, process_id: int, state: str = "running") -> Row | None:
        found = (row for row in self.workers() if row["pid"] == process_id and row["state"] == state)
        return next(found, None)

    def live_workers(self) -> list[int]:
        """Their process ids."""
        rows = (row for row in self.workers() if row["state"] == "running" and row["lease_until"] > row["now"])
        return [row["pid"] for row in rows]

    def submit(self, agent: str, count: int = 1, **input: Any) -> list[str]:
        requests = [Request(agent, input, principal="test") for _ in range(count)]
        answered = self.db.transaction_blocking(lambda tx: runs.submit_runs(tx, requests))
        self.db.notify(runs.WAKE_RUNS)
        assert all(isinstance(each, Submitted) for each in answered), answered
        return [request.id for request in requests]

    def states(self, ids: list[str]) -> Counter[str]:
        rows = self.db.read_blocking(lambda tx: tx.fetch_many("child_states", [{"id": id} for id in ids]))
        return Counter(row["state"] for row in rows)

    def until_ended(self, ids: list[str], *, seconds: float = WAIT_SECONDS) -> Counter[str]:
        def look() -> Counter[str] | None:
            states = self.states(ids)
            return states if states.keys() <= {"succeeded", "failed", "cancelled"} else None

        return eventually(look, f"all of {len(ids)} runs to end", seconds=seconds)

    def run(self, run_id: str) -> Row:
        return self.db.read_blocking(lambda tx: runs.run_in(tx, run_id))

    def attempts(self, run_id: str) -> list[Row]:
        return self.db.read_blocking(lambda tx: tx.fetch_all("attempts_of_run", run_id=run_id))

    def outcomes(self, ids: list[str]) -> Counter[str]:
        """How the attempts of these runs ended."""
        return Counter(attempt["state"] for id in ids for attempt in self.attempts(id))

    # --- evidence --------------------------------------------------------------------------

    def executions(self) -> list[Execution]:
        """In order."""
        if not self.evidence.exists():
            return []
        lines = [line.split() for line in self.evidence.read_text().splitlines()]
        return [Execution(run_id, step, int(attempt), int(pid)) for run_id, step, attempt, pid in lines]

    def steps_executed(self, run_id: str) -> list[tuple[str, int]]:
        """(step, attempt), in order."""
        return [(each.step, each.attempt) for each in self.executions() if each.run_id == run_id]

    def executed_twice(self) -> list[Execution]:
        """What must never be: a step executed after the attempt that finished it, or twice by one attempt."""
        rows = self.db.read_blocking(lambda tx: tx.fetch_all("step_writers"))
        finished_by = {(row["run_id"], row["key"]): row["attempt"] for row in rows}
        times = Counter(each[:3] for each in self.executions())
        return [
            each
            for each in self.executions()
            if each.attempt > finished_by.get(each[:2], each.attempt) or times[each[:3]] > 1
        ]

    def unexplained_checkpoints(self) -> list[Row]:
        """Checkpoints of steps that nobody has executed as part of the attempt that wrote them."""
        rows = self.db.read_blocking(lambda tx: tx.fetch_all("step_writers"))
        executed = {each[:3] for each in self.executions()}
        return [row for row in rows if (row["run_id"], row["key"], row["attempt"]) not in executed]

    def broken_invariants(self) -> list[checks.Verdict]:
        verdicts = asyncio.run(checks.check(self.db, grace_us=int(LEASE_SECONDS * 4_000_000)))
        return [verdict for verdict in verdicts if not verdict.holds]

    def assert_whole(self) -> None:
        """Nothing was done twice, and the run log agrees with itself and with the evidence."""
        assert self.executed_twice() == []
        assert self.unexplained_checkpoints() == []
        assert self.broken_invariants() == []


def answers(url: str) -> int:
    """The status of an answer, 0 where none comes."""
    try:
        return int(httpx2.get(url, timeout=10).status_code)
    except httpx2.TransportError:
        return 0
