"""Permission inside a run: what policies let through, what waits for people, and what they make of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pilothouse import App, Context, SyncContext
from pilothouse.control import autonomy, dead
from pilothouse.control.autonomy import Subject
from pilothouse.control.policies import SPENT_SECONDS
from pilothouse.control.timeline import why
from pilothouse.domain.autonomy import Level, Standing
from pilothouse.domain.policies import Decision, Facts, Proposal, Rule, Verdict
from pilothouse.errors import (
    ApprovalExpired,
    ApprovalIncomplete,
    ApprovalRejected,
    ConfigError,
    PolicyDenied,
    RevisionRequested,
)
from pilothouse.testing import ScriptedModel, TestPlatform
from tests.engine.conftest import Start

SENT: list[dict[str, Any]] = []


@pytest.fixture(autouse=True)
def nothing_sent() -> None:
    SENT.clear()


def desk(**options: Any) -> App:
    app = App("desk")

    @app.tool(effect="write", amount="amount_usd", **options)
    async def refund(order: int, amount_usd: float) -> str:
        """Pays money back."""
        SENT.append({"order": order, "amount_usd": amount_usd})
        return f"paid {amount_usd}"

    @app.agent
    async def by_code(ctx: Context, amount_usd: float = 80.0) -> str:
        try:
            return str(await ctx.tool(refund, order=7, amount_usd=amount_usd))
        except (ApprovalRejected, ApprovalExpired, RevisionRequested, PolicyDenied) as error:
            return f"{type(error).__name__}: {error}"

    @app.agent
    async def by_model(ctx: Context) -> str:
        return await ctx.llm("answer", "Refund order 7", tools=["refund"])

    @app.agent
    def plainly(ctx: SyncContext) -> Any:
        decision = ctx.approve("refund", amount_usd=80, recommendation="do it")
        return [decision.arguments, decision.decided_by, decision.is_edited]

    return app


async def asked(platform: TestPlatform, agent: str, input: Any = None) -> tuple[str, dict[str, Any]]:
    """A run of the agent that waits for a person, and what it asks."""
    run_id = await platform.submit(agent, input)
    await platform.run_until_idle()
    (approval,) = await platform.approvals(run_id)
    return run_id, approval


async def decided(platform: TestPlatform, run_id: str, approval: dict[str, Any], choice: Any, **options: Any) -> Any:
    await platform.decide(approval["id"], choice, **options)
    await platform.run_until_idle()
    run = await platform.get(run_id)
    assert run["state"] == "succeeded", run["error"]
    return run["output"]


async def test_what_no_policy_asks_about_goes_out_at_once(start: Start) -> None:
    platform = await start(desk())

    assert await platform.run("by_code", {"amount_usd": 10}) == "paid 10.0"
    assert await platform.approvals(state=None) == []


async def test_a_call_over_the_limit_waits_and_goes_out_as_it_was_approved(start: Start) -> None:
    platform = await start(desk())
    run_id, approval = await asked(platform, "by_code")

    assert SENT == []
    assert (approval["kind"], approval["action"], approval["arguments"]) == (
        "tool",
        "refund",
        {"order": 7, "amount_usd": 80.0},
    )
    assert [reason["rule"] for reason in approval["reasons"]] == ["amount"]
    told = await why(platform.db, run_id)
    assert f"it waits for approval {approval['id']} of 'refund(order=7, amount_usd=80.0)' since" in told["reasons"][0]
    assert f"`pilothouse approvals approve {approval['id']}`" in told["next"]
    assert await decided(platform, run_id, approval, "approve") == "paid 80.0"
    assert SENT == [{"order": 7, "amount_usd": 80.0}]
    (shown,) = (await platform.timeline(run_id))["approvals"]
    assert (shown["state"], shown["decided_by"]) == ("approved", "key:tester")


async def test_edited_arguments_replace_those_of_the_call(start: Start) -> None:
    platform = await start(desk())
    run_id, approval = await asked(platform, "by_code")

    edited = {"order": 8, "amount_usd": 50}
    assert await decided(platform, run_id, approval, "approve", arguments=edited) == "paid 50.0"
    assert SENT == [{"order": 8, "amount_usd": 50.0}]


async def test_edits_that_need_more_people_are_asked_about_again(start: Start) -> None:
    large = Rule(then=Decision.ASK, amount_over_usd=500, quorum=2, reason="large")
    platform = await start(desk(), policies={"large": large})
    run_id, approval = await asked(platform, "by_code")
    await platform.decide(approval["id"], "approve", arguments={"order": 7, "amount_usd": 900})
    await platform.run_until_idle()

    (again,) = await platform.approvals(run_id)
    assert (again["quorum"], again["arguments"]["amount_usd"], SENT) == (2, 900, [])
    await platform.decide(again["id"], "approve", by="key:ada")
    assert await decided(platform, run_id, again, "approve", by="key:grace") == "paid 900.0"


async def test_code_is_told_of_a_rejection_by_an_exception(start: Start) -> None:
    platform = await start(desk())
    run_id, approval = await asked(platform, "by_code")

    told = await decided(platform, run_id, approval, "reject", note="not this one")
    assert told == f"ApprovalRejected: approval {approval['id']} was rejected by key:tester: not this one"
    assert SENT == []


async def test_a_model_is_told_of_a_rejection_as_the_tools_result(start: Start) -> None:
    model = ScriptedModel(
        [
            {"call": {"tool": "refund", "arguments": {"order": 7, "amount_usd": 80}}, "times": 1},
            {"say": "I shall not."},
        ]
    )
    platform = await start(desk(), model=model)
    run_id, approval = await asked(platform, "by_model")

    assert "its model chose it" in approval["recommendation"]
    assert await decided(platform, run_id, approval, "reject", note="not this one") == "I shall not."
    assert "was rejected by key:tester: not this one" in str(model.asked[-1])
    assert SENT == []


async def test_an_uncaught_rejection_fails_the_run_at_once(start: Start) -> None:
    platform = await start(desk())
    run_id, approval = await asked(platform, "plainly")
    await platform.decide(approval["id"], "reject", note="no")
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["failures"], run["error"]["type"]) == ("failed", 1, "ApprovalRejected")


async def test_what_a_policy_denies_is_not_done_and_is_in_the_audit(start: Start) -> None:
    rule = Rule(then="deny", tool="ref*", reason="not today")  # type: ignore[arg-type]
    platform = await start(desk(), policies={"closed": rule})

    assert await platform.run("by_code") == "PolicyDenied: tool 'refund' is denied: not today"
    runs = await platform.db.read(
        lambda tx: tx.fetch_all(
            "tail_audit", limit=20, before=None, action="policy.denied", tenant=None, entity_id=None
        )
    )
    assert [row["reason"] for row in runs] == ["tool refund: not today"]


async def test_a_policy_in_python_speaks_too(start: Start) -> None:
    app = desk()

    @app.policy
    def odd_orders(proposal: Proposal, facts: Facts) -> Verdict | None:
        if facts.is_first_time and proposal.arguments.get("order") == 7:
            return Verdict.ask("the first refund of this agent", quorum=1)
        return None

    platform = await start(app)
    run_id, approval = await asked(platform, "by_code", {"amount_usd": 5})
    assert approval["reasons"] == [{"rule": "odd_orders", "decision": "ask", "text": "the first refund of this agent"}]
    assert await decided(platform, run_id, approval, "approve") == "paid 5.0"
    assert await platform.run("by_code", {"amount_usd": 5}) == "paid 5.0"


async def test_a_policy_sees_what_its_agent_has_spent_today(start: Start) -> None:
    app = desk(cost_usd=0.6)

    @app.policy
    def a_dollar_a_day(proposal: Proposal, facts: Facts) -> Verdict | None:
        spent = facts.spent_today_usd
        return Verdict.deny(f"{spent:.2f} USD are spent today") if spent > 0.4 else None

    platform = await start(app)
    await platform.advance(seconds=129_600 - platform.clock.now_us() / 1e6 % 86_400)  # to noon
    assert await platform.run("by_code", {"amount_usd": 5}) == "paid 5.0"
    await platform.advance(seconds=SPENT_SECONDS + 1)
    denied = "PolicyDenied: tool 'refund' is denied: 0.60 USD are spent today"
    assert await platform.run("by_code", {"amount_usd": 5}) == denied
    await platform.advance(seconds=86_400)
    assert await platform.run("by_code", {"amount_usd": 5}) == "paid 5.0"


async def test_a_policy_that_fails_asks_a_person(start: Start) -> None:
    app = desk()

    @app.policy
    def broken(proposal: Proposal, facts: Facts) -> Verdict | None:
        raise KeyError(proposal.action)

    platform = await start(app)
    _, approval = await asked(platform, "by_code", {"amount_usd": 1})

    assert approval["reasons"][0]["text"] == "policy broken failed: KeyError: 'refund'"


def test_a_policy_has_a_name_of_its_own_and_waits_for_nothing() -> None:
    app = App("t")

    @app.policy
    def one(proposal: Proposal, facts: Facts) -> Verdict | None:
        return None

    async def waits(proposal: Proposal, facts: Facts) -> Verdict | None:
        return None

    with pytest.raises(ConfigError, match="two policies named 'one'"):
        app.policy(one)
    with pytest.raises(ConfigError, match="is async"):
        app.policy(waits)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"risk": 5}, "risk is 5"),
        ({"people": "who"}, "people names 'who', which is no argument of it; they are order, amount_usd"),
        ({"billing": "weekly"}, "billing is 'weekly'"),
    ],
)
def test_what_a_tool_declares_must_make_sense(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        desk(**options)


@pytest.mark.parametrize(
    ("options", "rule"), [({"risk": 2}, "risk"), ({"billing": "recurring"}, "recurring"), ({"cost_usd": 11}, "amount")]
)
async def test_what_a_tool_declares_is_asked_about(start: Start, options: dict[str, Any], rule: str) -> None:
    platform = await start(desk(**options))
    _, approval = await asked(platform, "by_code", {"amount_usd": 1})

    assert [reason["rule"] for reason in approval["reasons"]] == [rule]


async def test_nothing_is_asked_again_once_the_intent_is_there(start: Start) -> None:
    """A worker that dies between intent and result leaves a question of its own; the approval stands."""
    app, calls = App("t"), list[float]()

    async def has_happened(amount_usd: float) -> bool:
        return False

    @app.tool(effect="write", amount="amount_usd", verify=has_happened)
    async def pay(amount_usd: float) -> str:
        calls.append(amount_usd)
        if len(calls) == 1:
            await platform.crash_worker()
            await ctx_sleep()
        return "paid"

    async def ctx_sleep() -> None:
        await asyncio.sleep(30)

    @app.agent
    async def agent(ctx: Context) -> str:
        return str(await ctx.tool(pay, amount_usd=80))

    platform = await start(app)
    run_id, approval = await asked(platform, "agent")

    assert await decided(platform, run_id, approval, "approve", arguments={"amount_usd": 60}) == "paid"
    assert calls == [60, 60]
    assert len(await platform.approvals(run_id, state=None)) == 1


# --- ctx.approve -------------------------------------------------------------------------------


def asking(**options: Any) -> App:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> Any:
        decision = await ctx.approve("plan", **options)
        return [decision.arguments, decision.decided_by, decision.note]

    return app


async def test_a_plain_handler_asks_too_and_the_amount_can_be_edited(start: Start) -> None:
    platform = await start(desk())
    run_id, approval = await asked(platform, "plainly")

    assert (approval["title"], approval["cost_usd"], approval["arguments"]) == ("refund", 80.0, {"amount_usd": 80})
    output = await decided(platform, run_id, approval, "approve", arguments={"amount_usd": 50})
    assert output == [{"amount_usd": 50}, "key:tester", True]


async def test_the_exact_arguments_come_back(start: Start) -> None:
    platform = await start(asking(recommendation="do it", arguments={"to": ["a", "b"]}))
    run_id, approval = await asked(platform, "agent")

    assert await decided(platform, run_id, approval, "approve", note="ok") == [{"to": ["a", "b"]}, "key:tester", "ok"]


async def test_low_risks_act_on_their_own(start: Start) -> None:
    platform = await start(asking(risk=1, amount_usd=5))

    assert await platform.run("agent") == [{"amount_usd": 5}, None, "no rule is against it"]


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({}, "recommendation"),
        ({"recommendation": "x", "risk": 3, "arguments": {}}, "reasoning"),
        ({"recommendation": "x", "reasoning": "y", "risk": 3}, "arguments"),
        ({"recommendation": "x", "title": " "}, "title"),
        ({"recommendation": "x", "confidence": 1.5}, "confidence"),
        ({"recommendation": "x", "risk": 7}, "risk"),
        ({"recommendation": "x", "amount_usd": -1}, "amount_usd"),
        ({"recommendation": "x", "on_deadline": "never"}, "on_deadline"),
        ({"recommendation": "x", "deadline_hours": 0}, "deadline_hours"),
    ],
)
async def test_a_poor_memo_is_sent_back_before_anybody_sees_it(
    start: Start, options: dict[str, Any], missing: str
) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> str:
        try:
            await ctx.approve("plan", **options)
        except ApprovalIncomplete as error:
            return str(error)
        return "asked"

    platform = await start(app)

    assert missing in await platform.run("agent")
    assert await platform.approvals(state=None) == []


async def test_a_revision_is_asked_for_again_under_the_same_name(start: Start) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> Any:
        amount = 80
        while True:
            try:
                decision = await ctx.approve("plan", recommendation="do it", amount_usd=amount)
            except RevisionRequested as error:
                amount = int(error.note)
                continue
            return decision.arguments

    platform = await start(app)
    run_id, first = await asked(platform, "agent")
    await platform.decide(first["id"], "revise", note="40")
    await platform.run_until_idle()
    (second,) = await platform.approvals(run_id)

    assert (first["round"], second["round"], second["cost_usd"]) == (1, 2, 40.0)
    assert await decided(platform, run_id, second, "approve") == {"amount_usd": 40}


async def test_nobody_decides_in_time(start: Start) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> str:
        try:
            await ctx.approve("plan", recommendation="do it", deadline_hours=2, on_deadline="expire")
        except ApprovalExpired as error:
            return str(error)
        return "approved"

    platform = await start(app)
    run_id, approval = await asked(platform, "agent")
    await platform.advance(seconds=7201)
    await platform.run_until_idle()

    expected = f"approval {approval['id']} expired: nobody decided before its deadline"
    assert (await platform.get(run_id))["output"] == expected


async def test_branches_wait_for_people_side_by_side(start: Start) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> list[Any]:
        both = await asyncio.gather(*(ctx.approve(name, recommendation="do it") for name in ("one", "two")))
        return [each.decided_by for each in both]

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    one, two = sorted(await platform.approvals(run_id), key=lambda each: str(each["action"]))
    await platform.decide(one["id"], "approve", by="key:ada")
    await platform.run_until_idle()
    assert (await platform.get(run_id))["state"] == "waiting"

    assert await decided(platform, run_id, two, "approve", by="key:grace") == ["key:ada", "key:grace"]


async def test_other_arguments_than_those_approved_are_a_divergence(start: Start) -> None:
    app, amounts = App("t"), [80, 800]

    @app.agent
    async def agent(ctx: Context) -> Any:
        return (await ctx.approve("plan", recommendation="do it", amount_usd=amounts[min(ctx.attempt, 2) - 1])).note

    platform = await start(app)
    run_id, approval = await asked(platform, "agent")
    await platform.decide(approval["id"], "approve")
    await platform.run_until_idle()

    error = (await platform.get(run_id))["error"]
    assert error["type"] == "DivergenceError"


async def test_a_redriven_run_asks_anew(start: Start) -> None:
    app = App("t")

    @app.agent(max_attempts=1)
    async def agent(ctx: Context) -> Any:
        async def look() -> None:
            await asyncio.sleep(0.05)
            if ctx.attempt == 1:
                raise ValueError("no")

        asking = asyncio.ensure_future(ctx.approve("plan", recommendation="do it"))
        await ctx.step("look", look)
        return (await asking).decided_by

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    (withdrawn,) = await platform.approvals(run_id, state=None)
    assert withdrawn["state"] == "withdrawn"
    await dead.redrive_run(platform.db, run_id, principal="test", reason="again")
    await platform.run_until_idle()
    (approval,) = await platform.approvals(run_id)

    assert approval["round"] == 2
    assert await decided(platform, run_id, approval, "approve") == "key:tester"


async def test_a_supervised_agent_asks_before_every_effect_until_it_is_trusted(start: Start) -> None:
    app = desk()

    @app.agent(autonomy="supervised")
    async def watched(ctx: Context) -> str:
        return str(await ctx.tool("refund", order=7, amount_usd=1.0))

    platform = await start(app)
    run_id, approval = await asked(platform, "watched")
    assert SENT == []
    assert "supervised" in approval["reasoning"]
    assert await decided(platform, run_id, approval, "approve") == "paid 1.0"

    trusted = Subject("watched", app.agents["watched"].version.fingerprint, "refund")
    standing = Standing(Level.AUTONOMOUS)
    await platform.db.transaction(
        lambda tx: autonomy.write(tx, trusted, standing, principal="test", reason="it has earned it")
    )
    await platform.advance(seconds=1)

    assert await platform.run("watched") == "paid 1.0"


async def test_rejections_take_autonomy_back(start: Start) -> None:
    platform = await start(desk())
    for _ in range(2):
        run_id, approval = await asked(platform, "by_code")
        await decided(platform, run_id, approval, "reject", note="not this one")

    await platform.advance(seconds=1)
    _, approval = await asked(platform, "by_code", {"amount_usd": 1.0})

    assert "supervised" in approval["reasoning"]
