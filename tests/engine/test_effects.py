"""Effects on both stores: what is known of them, what people say of them, and what their runs do then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pilothouse import App, Context, MayHaveHappened, RetryLater, RetryPolicy, StepError
from pilothouse.control import audit, dead, effects, signals
from pilothouse.control.effects import EffectFilter, Resolution
from pilothouse.control.timeline import why
from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.errors import Conflict, InvalidInput, NotFound
from pilothouse.store.database import Row
from pilothouse.testing import TestPlatform
from tests.engine.conftest import Start


class Post:
    """A tool that sends; its calls do one after the other what `plan` says, the last of it for ever.

    `crash`: its worker dies once it has sent. `die`: before. Else what it raises.
    """

    def __init__(self, *plan: str | Exception, **options: Any) -> None:
        self.app, self.sent, self.keys = App("post"), list[str](), list[str]()
        self.platform: TestPlatform | None = None
        self._plan = list(plan)

        @self.app.tool(platform="email", **({"effect": "irreversible"} | options))
        async def send(to: str, effect_key: str) -> str:
            self.keys.append(effect_key)
            doing = self._plan.pop(0) if self._plan else "send"
            if isinstance(doing, Exception):
                raise doing
            if doing != "die":
                self.sent.append(to)
            if doing in ("die", "crash"):
                assert self.platform is not None
                await self.platform.crash_worker()
            if doing == "hang":
                await asyncio.sleep(60)
            return "sent"

        @self.app.agent(max_attempts=4)
        async def writer(ctx: Context) -> str:
            return str(await ctx.tool(send, to="ada@example.com"))

        @self.app.agent
        async def calm(ctx: Context) -> str:
            try:
                return str(await ctx.tool(send, to="ada@example.com"))
            except StepError:
                return "it went on"

    async def run(self, start: Start, url: str, agent: str = "writer") -> tuple[TestPlatform, str]:
        self.platform = await start(self.app, url=url)
        run_id = await self.platform.submit(agent)
        await self.platform.run_until_idle()
        return self.platform, run_id

    async def orphan(self, start: Start, url: str) -> tuple[TestPlatform, str, str]:
        """Its worker has died, and the run asks; the effect's id comes last."""
        platform, run_id = await self.run(start, url)
        await platform.advance(seconds=5)
        await platform.run_until_idle()
        (row,) = await effects.list_effects(platform.db, EffectFilter(is_open=True))
        return platform, run_id, row["id"]


async def resolve(platform: TestPlatform, effect_id: str, happened: bool, result: Any = None, **more: Any) -> Any:
    said = Resolution(happened, "looked at the outbox", result)
    return await effects.resolve_effect(
        platform.db, effect_id, said, principal="key:ada", calendar=UTC_CALENDAR, **more
    )


async def balance_of(platform: TestPlatform, account: str) -> tuple[int, int]:
    """Actions of the day: settled, reserved."""
    rows: list[Row] = await asyncio.to_thread(
        platform.db.administer,
        lambda tx: tx.fetch_all("SELECT * FROM balances WHERE account = :account ORDER BY period", account=account),
    )
    day = next(row for row in rows if len(row["period"]) == 10)
    return day["settled_actions"], day["reserved_actions"]


async def test_an_effect_tells_its_arguments_and_how_it_ended(database_url: str, start: Start) -> None:
    platform, run_id = await Post().run(start, database_url)

    (row,) = await effects.list_effects(platform.db, EffectFilter())
    found = await effects.show_effect(platform.db, row["id"])

    assert found["arguments"] == {"to": "ada@example.com"}
    assert (found["state"], found["tries"], found["question"], found["resolve"]) == ("succeeded", 1, None, None)
    assert [call["outcome"] for call in found["calls"]] == ["succeeded"]
    assert [record["action"] for record in found["audit"]] == ["effect.succeeded"]
    assert [effect["id"] for effect in (await platform.timeline(run_id))["effects"]] == [row["id"]]


@pytest.mark.parametrize(("result", "output"), [("sent before", "sent before"), (None, "None"), (False, "False")])
async def test_what_happened_is_not_done_again(database_url: str, start: Start, result: Any, output: str) -> None:
    post = Post("crash")
    platform, run_id, effect_id = await post.orphan(start, database_url)
    told = await why(platform.db, run_id)
    assert f"pilothouse effects resolve {effect_id} --happened | --did-not-happen" in told["next"]
    found = await effects.show_effect(platform.db, effect_id)
    assert (found["state"], "did the call of tool 'send'" in found["question"]) == ("unknown", True)

    await resolve(platform, effect_id, True, result)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == output
    assert post.sent == ["ada@example.com"]
    found = await effects.show_effect(platform.db, effect_id)
    assert (found["state"], found["resolved_by"], found["note"]) == ("succeeded", "key:ada", "looked at the outbox")
    assert await balance_of(platform, "tenant:default") == (1, 0)


async def test_what_did_not_happen_is_done_once_more(database_url: str, start: Start) -> None:
    post = Post("die")
    platform, run_id, effect_id = await post.orphan(start, database_url)

    await resolve(platform, effect_id, False)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == "sent"
    assert len(post.sent) == 1
    assert len(set(post.keys)) == 1, "the same key for each try"
    found = await effects.show_effect(platform.db, effect_id)
    assert (found["state"], found["tries"], found["resolved_by"]) == ("succeeded", 2, None)
    assert await balance_of(platform, "tenant:default") == (1, 0)


async def test_an_answer_counts_once(database_url: str, start: Start) -> None:
    post = Post("crash")
    platform, run_id, effect_id = await post.orphan(start, database_url)

    answers = await asyncio.gather(
        *(resolve(platform, effect_id, happened) for happened in (True, True, False, False)), return_exceptions=True
    )
    await platform.run_until_idle()

    refused = sum(isinstance(answer, Conflict) for answer in answers)
    assert refused == 2 or (refused == 3 and len(post.sent) == 2)  # called anew before "it did not happen" came again
    assert len(post.sent) + (await platform.get(run_id))["output"].count("sent") in (1, 3)
    found = await effects.show_effect(platform.db, effect_id)
    assert [record["action"] for record in found["audit"]].count("effect.resolved") == 1


async def test_only_an_open_effect_is_resolved_and_only_by_its_tenant(database_url: str, start: Start) -> None:
    post = Post()
    platform, _ = await post.run(start, database_url)
    (row,) = await effects.list_effects(platform.db, EffectFilter())

    with pytest.raises(Conflict, match="is not open: it has succeeded, says its tool"):
        await resolve(platform, row["id"], True)
    with pytest.raises(NotFound):
        await resolve(platform, row["id"], True, tenant="globex")
    with pytest.raises(NotFound):
        await resolve(platform, "nothing", True)
    with pytest.raises(InvalidInput, match="has no result"):
        await resolve(platform, row["id"], False, "sent")


async def test_what_a_run_finds_out_by_itself_is_not_for_people(database_url: str, start: Start) -> None:
    app, calls = App("t"), list[str]()

    @app.tool(effect="idempotent")
    async def put() -> None:
        (row,) = await effects.list_effects(platform.db, EffectFilter())
        with pytest.raises(Conflict) as refused:
            await resolve(platform, row["id"], True)
        calls.append(str(refused.value))
        if len(calls) == 1:
            await platform.crash_worker()

    @app.agent
    async def agent(ctx: Context) -> None:
        await ctx.tool(put)

    platform = await start(app, url=database_url)
    await platform.run("agent")

    assert "is under way in attempt 1" in calls[0]
    assert "finds out by itself first" in calls[1]
    assert await effects.list_effects(platform.db, EffectFilter(is_open=True)) == []


# --- failures and time-outs --------------------------------------------------------------------


async def test_a_failed_write_is_never_just_repeated(database_url: str, start: Start) -> None:
    post = Post(ConnectionError("500 from the network"))
    platform, run_id = await post.run(start, database_url)

    run = await platform.get(run_id)
    assert (run["state"], run["attempt"], run["error"]["type"]) == ("failed", 1, "ConnectionError")
    (row,) = await effects.list_effects(platform.db, EffectFilter())
    assert (row["state"], row["tries"]) == ("failed", 1)
    await dead.redrive_run(platform.db, run_id, principal="test")
    await platform.run_until_idle()
    assert (await platform.get(run_id))["output"] == "sent"
    assert await balance_of(platform, "tenant:default") == (2, 0), "each call counts"


async def test_a_worker_that_dies_after_a_redrive_is_asked_about(database_url: str, start: Start) -> None:
    """The failure of the first call says nothing of the second one."""
    post = Post(ConnectionError("500"), "crash")
    platform, run_id = await post.run(start, database_url)
    await dead.redrive_run(platform.db, run_id, principal="test")
    await platform.run_until_idle()
    await platform.advance(seconds=5)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["state"] == "waiting"
    (row,) = await effects.list_effects(platform.db, EffectFilter(is_open=True))
    await resolve(platform, row["id"], True, "sent")
    await platform.run_until_idle()
    assert (await platform.get(run_id))["output"] == "sent"
    assert len(post.sent) == 1


@pytest.mark.parametrize("lost", ["hang", MayHaveHappened("the answer was lost")])
@pytest.mark.parametrize("happened", [True, False])
async def test_a_call_that_may_have_happened_is_asked_about_before_a_redrive_makes_it_again(
    database_url: str, start: Start, lost: str | Exception, happened: bool
) -> None:
    post = Post(lost, timeout_seconds=0.05, retry=RetryPolicy(attempts=5))
    platform, run_id = await post.run(start, database_url)
    assert (await platform.get(run_id))["state"] == "failed"
    (row,) = await effects.list_effects(platform.db, EffectFilter(is_open=True))
    assert await balance_of(platform, "tenant:default") == (0, 1), "it stays reserved"

    await resolve(platform, row["id"], happened, "sent by hand" if happened else None)
    assert await balance_of(platform, "tenant:default") == (int(happened), 0)
    calls = len(post.keys)
    await dead.redrive_run(platform.db, run_id, principal="test")
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == ("sent by hand" if happened else "sent")
    assert len(post.keys) == calls + (not happened)


async def test_a_redrive_without_an_answer_asks(database_url: str, start: Start) -> None:
    post = Post(MayHaveHappened("the answer was lost"))
    platform, run_id = await post.run(start, database_url)

    await dead.redrive_run(platform.db, run_id, principal="test")
    await platform.run_until_idle()

    assert "effects resolve" in (await why(platform.db, run_id))["next"]
    assert len(post.keys) == 1


async def test_a_handler_may_go_on_after_a_time_out(database_url: str, start: Start) -> None:
    platform, run_id = await Post("hang", timeout_seconds=0.05).run(start, database_url, "calm")
    assert (await platform.get(run_id))["output"] == "it went on"
    (row,) = await effects.list_effects(platform.db, EffectFilter(is_open=True))

    await resolve(platform, row["id"], True)

    assert await effects.list_effects(platform.db, EffectFilter(is_open=True)) == []
    assert await balance_of(platform, "tenant:default") == (1, 0)


async def test_a_redrive_from_the_start_forgets_what_was_said_of_older_calls(database_url: str, start: Start) -> None:
    post = Post("crash", ConnectionError("500"), "crash")
    platform, run_id, effect_id = await post.orphan(start, database_url)
    await resolve(platform, effect_id, False)
    await platform.run_until_idle()
    assert (await platform.get(run_id))["state"] == "failed"

    await dead.redrive_run(platform.db, run_id, principal="test", start_from="start")
    await platform.run_until_idle()
    await platform.advance(seconds=5)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["state"] == "waiting", "the older answer must not count for this call"


async def test_a_signal_by_hand_answers_too(database_url: str, start: Start) -> None:
    platform, run_id, effect_id = await Post("crash").orphan(start, database_url)

    await signals.send_signal(platform.db, run_id, "send.happened", True, principal="test")
    await platform.run_until_idle()

    found = await effects.show_effect(platform.db, effect_id)
    assert (found["state"], found["resolved_by"]) == ("succeeded", "person")


# --- told to come back later -------------------------------------------------------------------


@pytest.mark.parametrize("effect", ["read", "idempotent", "irreversible"])
async def test_a_call_that_is_put_off_is_made_once(database_url: str, start: Start, effect: str) -> None:
    post = Post(RetryLater(600, "429"), RetryLater(60, "429"), effect=effect)
    platform, run_id = await post.run(start, database_url)

    assert (await platform.get(run_id))["state"] == "waiting"
    assert "was told to come back later: 429" in (await why(platform.db, run_id))["reasons"][0]
    assert post.sent == []
    await platform.advance(seconds=599)
    await platform.run_until_idle()
    assert len(post.keys) == 1
    for seconds in (2, 61):
        await platform.advance(seconds=seconds)
        await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["output"], run["failures"], len(post.sent), len(post.keys)) == ("sent", 0, 1, 3)
    if effect != "read":
        assert await balance_of(platform, "tenant:default") == (1, 0)
        (row,) = await effects.list_effects(platform.db, EffectFilter())
        assert (row["state"], row["tries"]) == ("succeeded", 3)
        found = await effects.show_effect(platform.db, row["id"])
        assert [call["outcome"] for call in found["calls"]] == ["failed", "failed", "succeeded"]


async def test_a_worker_that_dies_after_a_put_off_call_is_asked_about(database_url: str, start: Start) -> None:
    post = Post(RetryLater(10), "crash")
    platform, run_id = await post.run(start, database_url)
    for seconds in (11, 5):
        await platform.advance(seconds=seconds)
        await platform.run_until_idle()

    assert "effects resolve" in (await why(platform.db, run_id))["next"]
    assert len(post.sent) == 1


# --- the list ----------------------------------------------------------------------------------


async def test_the_list_has_the_unknown_ones_first_and_pages(database_url: str, start: Start) -> None:
    app, platforms = App("many"), list[TestPlatform]()

    @app.tool(effect="write")
    async def put(number: int) -> None:
        if number % 3 == 0:
            raise MayHaveHappened("lost")

    @app.agent
    async def agent(ctx: Context, number: int) -> None:
        await ctx.tool(put, number=number)

    platform = await start(app, url=database_url)
    platforms.append(platform)
    for number in range(12):
        await platform.submit("agent", {"number": number}, tenant="acme" if number < 6 else "globex")
    await platform.run_until_idle()

    listed: list[Row] = []
    after = None
    while True:
        page = await effects.list_effects(platform.db, EffectFilter(), after=after, limit=5)
        listed += page
        if len(page) < 5:
            break
        after = effects.place_of(page[-1])
    assert [row["state"] for row in listed] == ["unknown"] * 4 + ["succeeded"] * 8
    assert len({row["id"] for row in listed}) == 12
    only = await effects.list_effects(platform.db, EffectFilter(tenant="acme", tool="put", is_open=True))
    assert {row["tenant"] for row in only} == {"acme"}
    assert len(only) == 2
    with pytest.raises(InvalidInput, match="after is what `next`"):
        await effects.list_effects(platform.db, EffectFilter(), after="x")
    records = await audit.tail(platform.db, action="effect.unknown", limit=10)
    assert len(records) == 4
