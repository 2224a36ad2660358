"""SIGKILL between intent and result, for each class of effect; and a cap that forty runs at once cannot pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from pilothouse.control import agents
from pilothouse.payloads import decode
from tests.crash.effects_under_test import app
from tests.crash.processes import SURE_LEASE, Fleet, eventually
from tests.patience import WAIT_SECONDS

APP = {"PILOTHOUSE_APP": "tests.crash.effects_under_test:app", "PILOTHOUSE_LEASE_SECONDS": "2"}
SURVIVOR = {**APP, **SURE_LEASE}
WORKER = ("worker", "--lanes", "critical=1,normal=8,low=1", "--shared", "0")


def launch(fleet: Fleet, **environment: str) -> None:
    cards = [agent.card(app.name, 300.0) for agent in app.agents.values()]
    fleet.db.transaction_blocking(lambda tx: agents.register(tx, cards, principal="test"))
    fleet.start("scheduler", "scheduler", **APP, **environment)


def orphan(fleet: Fleet, tool: str, when: str) -> str:
    """A run whose worker has died in the middle of its call."""
    (run_id,) = fleet.submit("caller", tool=tool, when=when)
    victim = f"victim-{run_id}"
    fleet.start(victim, *WORKER, **APP)
    assert fleet.wait(victim) != 0
    return run_id


def command(fleet: Fleet, *arguments: str) -> Any:
    """What the shipped command says."""
    done = subprocess.run(
        [sys.executable, "-m", "pilothouse", *arguments, "--json"],
        cwd=fleet.folder,
        env=os.environ | fleet.environment() | APP,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def calls(fleet: Fleet) -> Counter[str]:
    path: Path = fleet.folder / "calls.txt"
    return Counter(path.read_text().splitlines() if path.exists() else ())


def unknown(fleet: Fleet, run_id: str) -> str:
    """The effect that the run asks about."""

    def look() -> str | None:
        if fleet.run(run_id)["state"] != "waiting":
            return None
        found = command(fleet, "effects", "list", "--unknown", "--run", run_id)["items"]
        return found[0]["id"] if found else None

    return eventually(look, "the run to ask")


def test_a_worker_that_dies_in_a_call_never_makes_a_second_one_blindly(fleet: Fleet) -> None:
    launch(fleet)
    again = {tool: orphan(fleet, tool, "after") for tool in ("pure", "read", "idempotent")}
    verified = {when: orphan(fleet, "verified", when) for when in ("before", "after")}
    asked = {
        (tool, when): orphan(fleet, tool, when) for tool in ("write", "irreversible") for when in ("before", "after")
    }
    fleet.start("heir", *WORKER, **SURVIVOR)

    for (_, when), run_id in asked.items():
        effect_id = unknown(fleet, run_id)
        assert calls(fleet)[run_id] == (when == "after")
        assert f"effects resolve {effect_id}" in command(fleet, "runs", "why", run_id)["next"]
        said = ("--happened", "--result", '"seen in the bank"') if when == "after" else ("--did-not-happen",)
        resolved = command(fleet, "effects", "resolve", effect_id, *said, "--note", "looked")
        assert resolved["state"] == ("succeeded" if when == "after" else "failed")

    everything = [*again.values(), *verified.values(), *asked.values()]
    assert fleet.until_ended(everything) == {"succeeded": len(everything)}
    made = calls(fleet)
    assert all(made[id] >= 2 for id in again.values()), "nobody minds another call of these"
    assert [made[id] for id in (*verified.values(), *asked.values())] == [1] * 6
    assert decode(fleet.run(verified["after"])["output"]) == "after: verified"
    for (_, when), run_id in asked.items():
        assert decode(fleet.run(run_id)["output"]) == ("seen in the bank" if when == "after" else "done")
    assert command(fleet, "effects", "list", "--unknown")["items"] == []


def test_forty_runs_at_once_make_exactly_as_many_calls_as_a_cap_allows(fleet: Fleet) -> None:
    caps = {"PILOTHOUSE_ACTION_CAPS": '{"tool:do_write": 10}'}
    launch(fleet, **caps)
    for name in ("one", "two"):
        fleet.start(name, *WORKER, **SURVIVOR, **caps)
    ids = fleet.submit("caller", 40, tool="write", when="never")

    def settled() -> bool:
        states = fleet.states(ids)
        rows = fleet.db.read_blocking(lambda tx: tx.fetch_all("tail_audit", **ACTION_CAPS))
        return states == {"succeeded": 10, "waiting": 30} and len({row["run_id"] for row in rows}) == 30

    eventually(settled, "ten runs to end and thirty to wait for tomorrow")
    assert sum(calls(fleet).values()) == 10
    assert max(calls(fleet).values()) == 1
    assert "action_cap.reached" in fleet.log_of("one") + fleet.log_of("two")


ACTION_CAPS = {"limit": 100, "before": None, "action": "action_cap.reached", "tenant": None, "entity_id": None}
