"""`pilothouse demo governance`: a budget, an approval, a kill switch and an unknown effect, each put to the test.

Everything is done by the commands that people would type, on real processes, two of which die on the way.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from pilothouse.config import child_environment
from pilothouse.control import approvals, effects, runs
from pilothouse.control.approvals import Filter
from pilothouse.control.effects import EffectFilter
from pilothouse.control.runs import Request
from pilothouse.domain.runs import TERMINAL
from pilothouse.errors import PilothouseError
from pilothouse.examples.governed_desk import PRICE_USD
from pilothouse.examples.processes import Processes, wait_for_interrupt
from pilothouse.store.database import Row

RUNS, BUDGET_USD = 40, 1.00
ASKED_USD, EDITED_USD = 120.0, 60.0
MAILS, MAILS_BEFORE = 150, 40
WORKER = ("worker", "--lanes", "critical=1,normal=40,low=1", "--shared", "0")
SCENE_SECONDS = 30.0
ID_LENGTH = 36

POLICIES = """
app = "pilothouse.examples.governed_desk:app"
auto_spend_limit_usd = 1000.0

[policies.large-refunds]
action = "refund"
amount_over_usd = 50.0
then = "ask"
reason = "refunds over $50 are for a person"
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What happened; `problems` is empty only if everything that the demo promises held."""

    budget_usd: float
    asked_for_usd: float
    spent_usd: float
    searches: int
    runs_waiting: int
    refund_asked_usd: float
    refund_paid: tuple[str, ...]
    mails_before_switch: int
    mails_started_after_switch: int
    stop_seconds: float
    mails_sent: int
    wires: int
    invariants_checked: int
    invariants_broken: int
    unclean_exits: int
    seconds: float

    @property
    def problems(self) -> list[str]:
        affordable = round(self.budget_usd / PRICE_USD)
        found = {
            "the budget was overspent": self.spent_usd > self.budget_usd or self.searches > affordable,
            "the budget was not used up": self.searches < affordable,
            "the refund was not paid once, as it was edited": self.refund_paid != (f"${EDITED_USD:.2f}",),
            "a mail went out after the switch": self.mails_started_after_switch > 0,
            "a mail is missing, or went out twice": self.mails_sent != MAILS,
            "the money was not wired once": self.wires != 1,
            "invariants of the run log are broken": self.invariants_broken > 0,
            "a process did not stop cleanly": self.unclean_exits > 0,
        }
        return [problem for problem, is_so in found.items() if is_so]


def run_governance(*, keep: bool = False, as_json: bool = False) -> Figures:
    """Plays the four scenes. `keep` leaves the platform up until Ctrl-C. With `as_json` people's view goes to standard
    error.
    """
    folder = Path(tempfile.mkdtemp(prefix="pilothouse-governance-"))
    (folder / "pilothouse.toml").write_text(POLICIES, encoding="utf-8")
    demo = Governance(folder, Console(stderr=as_json, highlight=False))
    return demo.play(keep=keep)


class Governance:
    """The scenes, on API, scheduler and workers of one SQLite file."""

    def __init__(self, folder: Path, console: Console) -> None:
        self._folder = folder
        self._console = console
        self._processes = Processes(folder, "pilothouse.examples.governed_desk:app")
        self._workers = 0

    def play(self, *, keep: bool) -> Figures:
        started = time.monotonic()
        self._say("Pilothouse demo: governance", style="bold")
        self._say(f"API, scheduler and a worker on one SQLite file in {self._folder}", style="dim")
        with self._platform():
            figures = {**self._budget(), **self._approval(), **self._switch(), **self._unknown()}
            verdicts = self._processes.check()
            seconds = round(time.monotonic() - started, 1)
            if keep:
                self._say(f"\nThe platform is up at http://127.0.0.1:{self._processes.port}; Ctrl-C stops it.")
                wait_for_interrupt()
            unclean = self._processes.stop()
        broken = sum(1 for verdict in verdicts if not verdict.holds)
        done = Figures(
            **figures,
            invariants_checked=len(verdicts),
            invariants_broken=broken,
            unclean_exits=unclean,
            seconds=seconds,
        )
        self._close(done)
        return done

    @contextmanager
    def _platform(self) -> Iterator[None]:
        processes = self._processes
        processes.open()
        try:
            processes.start("api", "api", "--scheduler", "--port", str(processes.port))
            self._start_worker()
            yield
        finally:
            processes.close()

    def _start_worker(self) -> str:
        self._workers += 1
        name = f"worker-{self._workers}"
        self._processes.start(name, *WORKER)
        self._processes.until_workers(1)
        return name

    # --- scene 1: money ----------------------------------------------------------------------

    def _budget(self) -> dict[str, Any]:
        asked = RUNS * PRICE_USD
        self._scene(1, f"{RUNS} runs at once try to spend ${asked:.2f} of a budget of ${BUDGET_USD:.2f}")
        self._cli("budget", "set", "agent:researcher", "--usd", str(BUDGET_USD), "--per", "day")
        ids = self._submit("researcher", [{"number": number} for number in range(RUNS)])

        def settled() -> list[Row] | None:
            rows = self._states(ids)
            return rows if all(row["state"] in (*TERMINAL, "waiting") for row in rows) else None

        rows = self._processes.until(settled, "the end of the spending", seconds=SCENE_SECONDS)
        waiting = [row for row in rows if row["state"] == "waiting"]
        searches = len(self._lines("searches"))
        spent = searches * PRICE_USD
        self._say(f"{searches} searches at ${PRICE_USD:.2f} were made: ${spent:.2f} spent, $0.00 over the budget")
        self._say(
            f"{len(waiting)} runs wait for tomorrow's budget and hold nothing; none has failed. One of them says:"
        )
        if waiting:
            self._cli("runs", "why", waiting[0]["id"], is_shown=True)
        return {
            "budget_usd": BUDGET_USD,
            "asked_for_usd": asked,
            "spent_usd": spent,
            "searches": searches,
            "runs_waiting": len(waiting),
        }

    # --- scene 2: a person decides -----------------------------------------------------------

    def _approval(self) -> dict[str, Any]:
        self._scene(2, f"a refund of ${ASKED_USD:.2f} waits for a person, and its worker is killed meanwhile")
        (run_id,) = self._submit("refunder", [{"order": 7, "amount_usd": ASKED_USD}])
        approval = self._processes.until(self._pending, "the question", seconds=SCENE_SECONDS)
        self._say(f"{approval['title']} is asked about: {approval['reasoning'].removeprefix('asked because: ')}")
        self._processes.kill(f"worker-{self._workers}")
        self._say(f"SIGKILL to worker-{self._workers}: the run holds nothing there, so nothing is lost", style="yellow")
        edited = json.dumps({"order": 7, "amount_usd": EDITED_USD})
        note = "60 is what the order cost"
        self._cli("approvals", "approve", approval["id"], "--arguments", edited, "--note", note)
        self._say(f"a reviewer pays ${EDITED_USD:.2f} instead, and approves")
        self._start_worker()
        self._until_ended([run_id])
        paid = tuple(line.rpartition(" ")[2] for line in self._lines("refunds"))
        self._say(
            f"worker-{self._workers} went on where the run had stopped: paid once, {', '.join(paid)}", style="green"
        )
        return {"refund_asked_usd": ASKED_USD, "refund_paid": paid}

    def _pending(self) -> Row | None:
        found = asyncio.run(approvals.list_approvals(self._processes.db, Filter(state="pending")))
        return found[0] if found else None

    # --- scene 3: the stop -------------------------------------------------------------------

    def _switch(self) -> dict[str, Any]:
        self._scene(3, f"a run sends {MAILS} mails; a kill switch is tripped in the middle of it")
        (run_id,) = self._submit("mailer", [{"mails": MAILS}])
        self._processes.until(lambda: len(self._lines("mails")) >= MAILS_BEFORE or None, "the mails", seconds=20)
        reason = "wrong list of customers"
        told = self._cli("switch", "trip", "agent:mailer", "--mode", "hold", "--reason", reason, "--verify", "--json")
        answer = json.loads(told)
        tripped_at = _microseconds(answer["tripped_at"])
        proof = answer["proof"]
        sent = self._lines("mails")
        before = len(sent)
        self._say(f"every live worker acted by it {proof['seconds']:.2f} s after the trip; {before} mails had gone out")
        after = [line for line in sent if int(line.split()[0]) - tripped_at > 250_000]
        self._say(f"mails that started later than 250 ms after the trip: {len(after)}", style="green")
        self._cli("switch", "reset", "agent:mailer")
        self._until_ended([run_id])
        numbers = [line.split()[1] for line in self._lines("mails")]
        self._say(f"after the reset it went on: {len(set(numbers))} of {MAILS} mails sent, none twice", style="green")
        return {
            "mails_before_switch": before,
            "mails_started_after_switch": len(after),
            "stop_seconds": round(float(proof["seconds"]), 3),
            "mails_sent": len(set(numbers)) if len(numbers) == len(set(numbers)) else len(numbers),
        }

    # --- scene 4: did it happen? -------------------------------------------------------------

    def _unknown(self) -> dict[str, Any]:
        self._scene(4, "a worker dies after it wired money, before it could tell")
        dying = f"worker-{self._workers}"
        self._processes.expect_death(dying)
        (run_id,) = self._submit("payer", [{"reference": "invoice 4711"}])
        self._processes.until(lambda: self._lines("wires") or None, "the wire", seconds=SCENE_SECONDS)
        self._say(f"{dying} is dead; its intent is in the ledger of effects, its result is not", style="yellow")
        self._start_worker()
        effect = self._processes.until(self._asked_effect, "the question", seconds=SCENE_SECONDS)
        self._say("nobody knows whether the money went out, so nobody sends it again; the run asks a person:")
        self._cli("runs", "why", run_id, is_shown=True)
        self._cli("effects", "resolve", effect["id"], "--happened", "--note", "it is in the bank's list")
        self._until_ended([run_id])
        wires = len(self._lines("wires"))
        self._say(
            f"the run has succeeded, and the money went out {'once' if wires == 1 else f'{wires} times'}", style="green"
        )
        return {"wires": wires}

    def _asked_effect(self) -> Row | None:
        """The effect of unknown outcome, once its run asks about it."""
        found = asyncio.run(effects.list_effects(self._processes.db, EffectFilter(is_open=True)))
        waiting = [each for each in found if self._states([each["run_id"]])[0]["state"] == "waiting"]
        return waiting[0] if waiting else None

    # --- doing and looking -------------------------------------------------------------------

    def _submit(self, agent: str, inputs: Sequence[dict[str, Any]]) -> list[str]:
        requests = [Request(agent, each, principal="demo") for each in inputs]
        self._processes.db.transaction_blocking(lambda tx: runs.submit_runs(tx, requests))
        self._processes.db.notify(runs.WAKE_RUNS)
        return [request.id for request in requests]

    def _states(self, ids: Sequence[str]) -> list[Row]:
        return self._processes.db.read_blocking(lambda tx: [runs.run_in(tx, id) for id in ids])

    def _until_ended(self, ids: Sequence[str]) -> None:
        def look() -> bool | None:
            return all(row["state"] in TERMINAL for row in self._states(ids)) or None

        self._processes.until(look, "the end of the run", seconds=SCENE_SECONDS)

    def _lines(self, name: str) -> list[str]:
        path = self._folder / f"{name}.txt"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def _cli(self, *arguments: str, is_shown: bool = False) -> str:
        """A command as people type it; what it prints. Raises PilothouseError where it fails."""
        shown = [f"{each[:8]}..." if len(each) == ID_LENGTH and each.count("-") == 4 else each for each in arguments]
        self._say(f"$ pilothouse {shlex.join(shown)}", style="cyan")
        done = subprocess.run(
            [sys.executable, "-m", "pilothouse", *arguments],
            cwd=self._folder,
            env=child_environment(DATABASE_URL=self._processes.database_url, COLUMNS="100"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PilothouseError(f"`pilothouse {shlex.join(arguments)}` failed: {done.stderr.strip()[-500:]}")
        if is_shown:
            for line in done.stdout.strip().splitlines():
                self._say(f"  {line}", style="dim")
        return done.stdout

    def _scene(self, number: int, title: str) -> None:
        self._console.print()
        self._say(f"{number}. {title}", style="bold")

    def _say(self, text: str, *, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)

    def _close(self, done: Figures) -> None:
        self._console.print()
        held = done.invariants_checked - done.invariants_broken
        checked = f"{held} of {done.invariants_checked} invariants of the database hold (`pilothouse db check`)"
        self._say(f"after two dead workers {checked}; {done.seconds} s in all", style="bold")
        self._say(f"it is all kept: `cd {self._folder} && pilothouse up` shows it in a browser", style="dim")
        for problem in done.problems:
            self._say(problem, style="bold red")


def _microseconds(instant: str) -> int:
    return int(datetime.fromisoformat(instant).timestamp() * 1_000_000)
