"""Incidents on both stores: siblings are found, corrections linked, the run frozen as a case."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pilothouse import App, Context
from pilothouse.control import audit, effects, incidents, retention
from pilothouse.control.effects import EffectFilter
from pilothouse.control.incidents import Correction, IncidentFilter, Report
from pilothouse.control.runs import Request
from pilothouse.domain.incidents import Severity
from pilothouse.errors import Conflict, InvalidInput, NotFound
from pilothouse.testing import TestPlatform
from tests.engine.conftest import Start

HOUR = 3600.0


def shop() -> App:
    app = App("shop")

    @app.tool(effect="irreversible", platform="payments")
    async def refund(order: int, amount: int) -> str:
        return f"refunded {order}"

    @app.tool(effect="write", platform="payments")
    async def charge(order: int) -> str:
        return f"charged {order}"

    @app.agent
    async def desk(ctx: Context, order: int, amount: int = 10) -> str:
        found = await ctx.step("look up", lambda: {"order": order, "paid": 5})
        await ctx.start("helper", {"order": order}, name="help")
        return str(await ctx.tool(refund, order=found["order"], amount=amount))

    @app.agent
    async def helper(ctx: Context, order: int) -> str:
        return str(await ctx.tool(charge, order=order))

    return app


async def effect_of(platform: TestPlatform, run_id: str) -> str:
    (row,) = await effects.list_effects(platform.db, EffectFilter(run_id=run_id))
    return str(row["id"])


async def test_an_incident_finds_its_siblings_and_freezes_its_run(database_url: str, start: Start) -> None:
    platform = await start(shop(), url=database_url)
    old = await platform.submit("desk", {"order": 1})
    await platform.run_until_idle()
    await platform.advance(seconds=30 * HOUR)
    same_code = await platform.submit("desk", {"order": 2})
    await platform.run_until_idle()
    bad = await platform.submit("desk", {"order": 1}, tenant="acme")
    await platform.run_until_idle()
    unlike = await platform.submit("helper", {"order": 9})
    await platform.run_until_idle()
    bad_effect = await effect_of(platform, bad)

    found = await incidents.open_incident(platform.db, Report(bad_effect, "twice the price"), principal="key:ada")

    kin = {row["run_id"]: row["kinship"] for row in found["effects"]}
    children = [run["id"] for run in (await platform.timeline(bad))["children"]]
    assert kin == {bad: "original", old: "arguments", same_code: "version", children[0]: "lineage"}
    assert unlike not in kin
    assert [row["kinship"] for row in found["effects"]] == ["original", "arguments", "lineage", "version"]
    assert found["effects"][0]["effect_id"] == bad_effect
    assert {row["state"] for row in found["effects"]} == {"succeeded"}
    record = await audit.show(platform.db, found["effects"][0]["audit_seq"])
    assert (record["action"], record["entity_id"]) == ("effect.succeeded", bad_effect)

    case = await incidents.case_of(platform.db, found["id"])
    assert (case["agent"], case["input"]) == ("desk", {"order": 1})
    answers = {answer["key"]: answer["result"] for answer in case["answers"]}
    assert answers["look up"] == {"order": 1, "paid": 5}
    assert "refund" not in answers
    assert case["expectation"] == {"must_not_call": {"tool": "refund", "arguments": {"order": 1, "amount": 10}}}
    assert case["source"]["incident"] == found["id"]


async def test_of_too_many_siblings_the_nearest_are_kept(
    database_url: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incidents, "CANDIDATES", 1)
    platform = await start(shop(), url=database_url)
    bad, twin, newer = [await platform.submit("helper", {"order": order}) for order in (1, 1, 2)]
    await platform.run_until_idle()
    lost = await effect_of(platform, bad)
    statement = f"UPDATE effects SET state = 'intended', finished_at = NULL WHERE id = '{lost}'"
    await asyncio.to_thread(platform.db.administer, lambda tx: tx.execute(statement))

    found = await incidents.open_incident(platform.db, Report(lost, "it came twice"), principal="key:ada")

    assert newer not in {row["run_id"] for row in found["effects"]}
    assert [(row["run_id"], row["state"], row["state_now"]) for row in found["effects"]] == [
        (bad, "unknown", "unknown"),
        (twin, "succeeded", "succeeded"),
    ]


async def test_corrections_are_effects_linked_to_what_they_correct(database_url: str, start: Start) -> None:
    platform = await start(shop(), url=database_url)
    run_id = await platform.submit("desk", {"order": 1})
    await platform.run_until_idle()
    bad = await effect_of(platform, run_id)
    opened = await incidents.open_incident(platform.db, Report(bad, "no"), principal="key:ada")

    await incidents.correct(platform.db, opened["id"], Correction(bad, "called the bank"), principal="key:ada")
    request = Request("helper", {"order": 1}, principal="key:ada")
    found = await incidents.correct(
        platform.db, opened["id"], Correction(bad, "charged again", request), principal="key:ada"
    )
    await platform.run_until_idle()

    by_hand, by_run = found["corrections"]
    seq = opened["effects"][0]["audit_seq"]
    assert (by_hand["audit_seq"], by_hand["by_run"], by_run["by_run"]) == (seq, None, request.id)
    assert (await platform.get(request.id))["state"] == "succeeded"
    shown = await effects.show_effect(platform.db, by_hand["id"])
    assert (shown["corrects"], shown["state"], shown["note"]) == (bad, "succeeded", "called the bank")
    reasons = [record["reason"] for record in await audit.tail(platform.db, action="effect.corrected")]
    assert reasons == [
        f"corrects audit record {seq}: charged again (incident {opened['id']})",
        f"corrects audit record {seq}: called the bank (incident {opened['id']})",
    ]
    closed = await incidents.close_incident(platform.db, opened["id"], "the price list was stale", principal="key:ada")
    assert (closed["state"], closed["note"]) == ("closed", "the price list was stale")
    with pytest.raises(Conflict, match="is closed already, by key:ada"):
        await incidents.correct(platform.db, opened["id"], Correction(bad, "again"), principal="key:ada")


async def test_what_cannot_be_is_refused(database_url: str, start: Start) -> None:
    platform = await start(shop(), url=database_url)
    run_id = await platform.submit("desk", {"order": 1}, tenant="acme")
    await platform.run_until_idle()
    bad = await effect_of(platform, run_id)

    async def report(effect_id: str = bad, reason: str = "no", tenant: str | None = None, **more: Any) -> Any:
        return await incidents.open_incident(
            platform.db, Report(effect_id, reason, **more), principal="p", tenant=tenant
        )

    with pytest.raises(NotFound):
        await report("nothing")
    with pytest.raises(NotFound):
        await report(tenant="globex")
    with pytest.raises(InvalidInput, match="reason is empty"):
        await report(reason=" ")
    with pytest.raises(InvalidInput, match="hours is -1"):
        await report(hours=-1)
    opened = await report()
    with pytest.raises(Conflict, match=f"incident {opened['id']} is open for effect {bad} already"):
        await report()
    with pytest.raises(NotFound):
        await incidents.show_incident(platform.db, opened["id"], tenant="globex")
    request = Request("nobody", {}, principal="p")
    with pytest.raises(NotFound, match="unknown agent"):
        await incidents.correct(platform.db, opened["id"], Correction(bad, "x", request), principal="p")
    with pytest.raises(Conflict, match="is none of incident"):
        await incidents.correct(platform.db, opened["id"], Correction("other", "x"), principal="p")
    assert (await incidents.show_incident(platform.db, opened["id"]))["corrections"] == []


async def test_critical_incidents_are_counted_while_open_and_in_their_time(database_url: str, start: Start) -> None:
    platform = await start(shop(), url=database_url)
    ids = [await platform.submit("desk", {"order": number}) for number in range(3)]
    await platform.run_until_idle()
    wrong = [await effect_of(platform, id) for id in ids]
    opened = await incidents.open_incident(platform.db, Report(wrong[0], "bad"), principal="p")
    await incidents.open_incident(platform.db, Report(wrong[1], "odd", Severity.MINOR), principal="p")
    now = platform.clock.now_us()

    async def counted(since: int, agent: str = "desk") -> int:
        return await platform.db.read(lambda tx: incidents.critical_open(tx, agent, since))

    assert [await counted(0), await counted(now + 1), await counted(0, "helper")] == [1, 1, 0]
    await incidents.close_incident(platform.db, opened["id"], "done", principal="p")
    assert [await counted(0), await counted(now + 1)] == [1, 0]
    listed = await incidents.list_incidents(platform.db, IncidentFilter(severity="critical"))
    assert [(row["id"], row["state"], row["siblings"]) for row in listed] == [(opened["id"], "closed", 3)]
    assert len(await incidents.list_incidents(platform.db, IncidentFilter(), limit=1)) == 1
    page = await incidents.list_incidents(platform.db, IncidentFilter(), after=listed[0]["id"])
    assert page == []


async def test_runs_of_an_open_incident_outlast_retention(database_url: str, start: Start) -> None:
    platform = await start(shop(), url=database_url)
    ids = [await platform.submit("desk", {"order": number}) for number in range(2)]
    await platform.run_until_idle()
    bad = await effect_of(platform, ids[0])
    opened = await incidents.open_incident(platform.db, Report(bad, "bad", hours=0), principal="p")
    await platform.advance(seconds=HOUR)

    def prune(tx: Any) -> list[str]:
        return retention.prune_batch(tx, keep_us=1)

    kept = {row["run_id"] for row in opened["effects"]}
    pruned = await platform.db.transaction(prune)
    assert not kept & set(pruned)
    await incidents.close_incident(platform.db, opened["id"], "done", principal="p")
    while await platform.db.transaction(prune):
        pass

    with pytest.raises(NotFound):
        await effects.show_effect(platform.db, bad)
    found = await incidents.show_incident(platform.db, opened["id"])
    assert {row["state_now"] for row in found["effects"]} == {None}
    assert (await incidents.case_of(platform.db, opened["id"]))["agent"] == "desk"
