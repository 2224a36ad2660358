"""SIGKILL around approvals: people are asked once, what they decide stands, and what they approved is done once."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.control import approvals
from pilothouse.control.approvals import Filter, Said
from pilothouse.domain.approvals import Decider
from pilothouse.payloads import decode
from tests.crash.processes import Fleet, eventually

ADA = Decider("key:ada")


def pending(fleet: Fleet, run_id: str, action: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        rows = fleet.db.read_blocking(lambda tx: tx.fetch_all("approvals_of_run", run_id=run_id))
        return next((row for row in rows if row["state"] == "pending" and row["action"] == action), None)

    return eventually(look, f"run {run_id} to ask for {action}")


@pytest.mark.parametrize("kill_after_decision", [False, True])
async def test_a_run_waits_through_kills_and_goes_on_as_it_was_decided(fleet: Fleet, kill_after_decision: bool) -> None:
    fleet.start("scheduler", "scheduler")
    fleet.start_worker("first")
    (run_id,) = fleet.submit("asker")
    plan = pending(fleet, run_id, "plan")
    eventually(lambda: fleet.run(run_id)["state"] == "waiting", "the run to sleep")
    if not kill_after_decision:
        fleet.kill("first")
    await approvals.decide(fleet.db, plan["id"], Said("approve"), ADA)
    if kill_after_decision:
        fleet.kill("first")

    fleet.start_worker("second")
    refund = pending(fleet, run_id, "refund")
    edited = {"amount_usd": 50}
    if not kill_after_decision:
        fleet.kill("second")
    await approvals.decide(fleet.db, refund["id"], Said("approve", arguments=edited), ADA)
    if kill_after_decision:
        fleet.kill("second")
    fleet.start_worker("third")

    assert fleet.until_ended([run_id]) == {"succeeded": 1}
    assert decode(fleet.run(run_id)["output"]) == "paid 50"
    assert [step for step, _ in fleet.steps_executed(run_id)].count("before") == 1
    assert [step for step, _ in fleet.steps_executed(run_id)].count("refund-50") == 1
    asked = await approvals.list_approvals(fleet.db, Filter(run_id=run_id))
    assert [(row["action"], row["state"]) for row in asked] == [("refund", "approved"), ("plan", "approved")]
