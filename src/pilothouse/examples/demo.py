"""`pilothouse demo`: the code steward on real sources, with one of two workers killed midway."""

from __future__ import annotations

import asyncio
import json
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from pilothouse.client import Client
from pilothouse.control import checks, insights
from pilothouse.domain.runs import TERMINAL
from pilothouse.errors import ConfigError
from pilothouse.examples.demo_view import DemoView, Snapshot
from pilothouse.examples.processes import Processes, wait_for_interrupt
from pilothouse.store.database import Row

LEAST_FILES = 10
KILL_AT = 0.35
"""The share of the files that is done when a worker is killed."""
RUN_SECONDS = 600.0
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Figures:
    """The closing table."""

    files: int
    runs: int
    attempts: int
    lost_attempts: int
    recovered_runs: int
    steps_executed: int
    steps_from_checkpoints: int
    steps_in_flight_when_killed: int
    steps_executed_twice: int
    seconds: float
    runs_per_second: float
    invariants_checked: int
    invariants_broken: int
    unclean_exits: int
    report: str
    state: str

    @property
    def problems(self) -> list[str]:
        """What the demo promised and did not hold."""
        found = {
            f"the steward's run is {self.state}": self.state != "succeeded",
            "no attempt was lost, so nothing was shown": self.lost_attempts == 0,
            "a lost attempt was not recovered": self.recovered_runs < 1,
            "finished steps were executed again": self.steps_executed_twice > 0,
            "invariants of the run log are broken": self.invariants_broken > 0,
            "a process did not stop cleanly": self.unclean_exits > 0,
            "there is no report": not Path(self.report).is_file(),
        }
        return [problem for problem, is_so in found.items() if is_so]


def run_demo(
    *, path: Path | None = None, files: int | None = None, keep: bool = False, as_json: bool = False
) -> Figures:
    """Runs the demo and returns what happened; its `problems` are empty only if everything it promises held.

    `path` is a folder of Python sources, by default the running interpreter's standard library; `files` bounds how
    many are audited. `keep` leaves the platform up until Ctrl-C. With `as_json` people's view goes to standard error.
    Raises ConfigError where `path` has no sources.
    """
    source = (path or Path(sysconfig.get_path("stdlib"))).resolve()
    total = len(sorted(source.glob("*.py"))[:files])
    if total < LEAST_FILES:
        raise ConfigError(f"{source} has {total} Python sources directly in it; the demo needs at least {LEAST_FILES}")
    folder = Path(tempfile.mkdtemp(prefix="pilothouse-demo-"))
    with DemoView(Console(stderr=as_json, highlight=False), total, source, folder) as view:
        demo = Demo(folder, source, files, view)
        with demo.platform():
            started = time.monotonic()
            state = demo.run()
            elapsed = time.monotonic() - started
            verdicts = demo.check()
            if keep:
                view.keep(demo.url)
                wait_for_interrupt()
            figures = demo.figures(state, elapsed, verdicts, unclean_exits=demo.stop())
        view.close(figures, verdicts)
    return figures


class Demo:
    """The processes of the demo on one SQLite file, and what is seen of them from outside."""

    def __init__(self, folder: Path, source: Path, files: int | None, view: DemoView) -> None:
        self._folder = folder
        self._source = source
        self._files = files
        self._view = view
        self._processes = Processes(folder, "pilothouse.examples.code_steward:app")
        self._db = self._processes.db
        self._killed: str | None = None

    @property
    def url(self) -> str:
        return self._processes.url

    @contextmanager
    def platform(self) -> Iterator[None]:
        """API and scheduler in one process, two workers beside it."""
        processes = self._processes
        processes.open()
        try:
            processes.start("api", "api", "--scheduler", "--port", str(processes.port))
            for name in ("worker-1", "worker-2"):
                processes.start(name, "worker", "--lanes", "critical=1,normal=1,low=3", "--shared", "1")
            processes.until_workers(2)
            yield
        finally:
            processes.close()

    def run(self) -> str:
        """Submits the steward and follows it to its end, killing one worker on the way; its last state."""
        with Client(self.url) as client:
            wanted = {"path": str(self._source), "report": str(self.report), "limit": self._files}
            run_id = client.submit("steward", wanted, idempotency_key="demo")["id"]
            deadline = time.monotonic() + RUN_SECONDS
            while (run := client.get(run_id))["state"] not in TERMINAL and time.monotonic() < deadline:
                snapshot = self._snapshot()
                self._view.show(snapshot)
                if self._killed is None and snapshot.done >= KILL_AT * self._view.total:
                    self._kill_a_worker()
                self._processes.raise_if_ended()
                time.sleep(LOOK_SECONDS)
        self._view.show(self._snapshot())
        return str(run["state"])

    @property
    def report(self) -> Path:
        return self._folder / "report.md"

    def _snapshot(self) -> Snapshot:
        queue = asyncio.run(insights.queue_insights(self._db))
        audits = next((insight for insight in queue if insight.agent == "audit_file"), None)
        lost = sum(insight.attempts.get("lost", 0) for insight in queue)
        held = {row["pid"]: int(row["running"]) for row in self._processes.live_workers()}
        return Snapshot(
            runs=audits.runs if audits else {},
            held={name: held.get(process.pid) for name, process in self._processes.running.items() if name != "api"},
            lost=lost,
            recovered=self._recovery()["recovered"] if lost else 0,
        )

    def _recovery(self) -> Row:
        row = self._db.read_blocking(lambda tx: tx.fetch_one("recovery_figures"))
        assert row is not None
        return row

    def _kill_a_worker(self) -> None:
        """SIGKILL to a worker that holds attempts at this moment."""
        pids = {process.pid: name for name, process in self._processes.running.items()}
        for row in self._processes.live_workers():
            if row["running"] and row["pid"] in pids:
                self._killed = pids[row["pid"]]
                self._processes.kill(self._killed)
                self._view.tell_killed(self._killed, int(row["running"]))
                return

    def check(self) -> list[checks.Verdict]:
        return self._processes.check()

    def stop(self) -> int:
        return self._processes.stop()

    def figures(self, state: str, elapsed: float, verdicts: list[checks.Verdict], *, unclean_exits: int) -> Figures:
        sizes = self._db.read_blocking(lambda tx: tx.fetch_one("check_sizes")) or {}
        recovery = self._recovery()
        executions = list(_executions(self._folder))
        writers = self._db.read_blocking(lambda tx: tx.fetch_all("step_writers"))
        finished_by = {(row["run_id"], row["key"]): row["attempt"] for row in writers}
        return Figures(
            files=self._view.total,
            runs=sizes["runs"],
            attempts=sizes["attempts"],
            lost_attempts=recovery["lost"],
            recovered_runs=recovery["recovered"],
            steps_executed=len(executions),
            steps_from_checkpoints=recovery["replayed"],
            steps_in_flight_when_killed=sum(1 for step, attempt in executions if attempt < finished_by.get(step, 0)),
            steps_executed_twice=_executed_twice(executions, finished_by),
            seconds=round(elapsed, 2),
            runs_per_second=round(sizes["runs"] / elapsed, 1),
            invariants_checked=len(verdicts),
            invariants_broken=sum(1 for verdict in verdicts if not verdict.holds),
            unclean_exits=unclean_exits,
            report=str(self.report),
            state=state,
        )


def _executions(folder: Path) -> Iterator[tuple[tuple[str, str], int]]:
    """Every execution of a step, as the workers logged it: ((run id, step), attempt)."""
    for log in sorted(folder.glob("worker-*.log")):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            entry = _parse(line)
            if entry.get("message") == "step.executed":
                context = entry["context"]
                yield (context["run_id"], context["step"]), context["attempt"]


def _parse(line: str) -> dict[str, Any]:
    """A log line; the last one of a killed worker may be cut off."""
    try:
        parsed = json.loads(line)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _executed_twice(executions: list[tuple[tuple[str, str], int]], finished_by: dict[tuple[str, str], int]) -> int:
    """Executions of a step whose checkpoint was there before: by a later attempt than the one that finished it, or
    again by the same."""
    seen: set[tuple[tuple[str, str], int]] = set()
    twice = 0
    for execution in executions:
        step, attempt = execution
        twice += attempt > finished_by.get(step, attempt) or execution in seen
        seen.add(execution)
    return twice
