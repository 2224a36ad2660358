"""Tools inside a run: checked, recorded, given their secrets, and never called twice without a question."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest

from pilothouse import App, Context, RetryPolicy, Secret
from pilothouse.control.timeline import why
from pilothouse.domain.retries import Backoff
from pilothouse.errors import ConfigError, ToolError
from pilothouse.testing import ScriptedModel, TestPlatform
from tests.engine.conftest import Start

TOKEN = "s3cr3t-token-of-acme"


async def test_a_call_is_kept_and_recorded(start: Start) -> None:
    app, sent = App("t"), list[str]()

    @app.tool(effect="idempotent", platform="email", cost_usd=0.002)
    async def send_reply(to: str, body: str) -> str:
        sent.append(to)
        return "sent"

    @app.agent
    async def agent(ctx: Context) -> str:
        first = await ctx.tool(send_reply, to="ada@example.com", body="Hello")
        await ctx.tool("send_reply", to="grace@example.com", body="Hello")
        await ctx.sleep("nap", seconds=1)
        return str(first)

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=2)
    await platform.run_until_idle()

    found = await platform.timeline(run_id)
    assert found["run"]["output"] == "sent"
    assert sent == ["ada@example.com", "grace@example.com"]
    assert [call["key"] for call in found["tool_calls"]] == ["send_reply", "send_reply-2"]
    first = found["tool_calls"][0]
    assert (first["tool"], first["effect"], first["platform"], first["called_by"], first["cost_microusd"]) == (
        "send_reply",
        "idempotent",
        "email",
        "code",
        2000,
    )
    assert first["arguments"] == {"to": "ada@example.com", "body": "Hello"}
    assert (first["agent"], first["result"], first["error"]) == ("agent", "sent", None)


async def test_arguments_are_checked_first(start: Start) -> None:
    app, called = App("t"), list[int]()

    @app.tool(effect="read")
    def lookup(order: int) -> int:
        called.append(order)
        return order

    @app.agent
    async def agent(ctx: Context) -> str:
        try:
            return str(await ctx.tool(lookup, order="x", other=1))
        except ToolError as error:
            return str(error)

    platform = await start(app)

    told = await platform.run("agent")
    assert "order: Input should be a valid integer" in told
    assert "other: Extra inputs are not permitted" in told
    assert called == []


async def test_a_tool_is_tried_again_as_its_policy_says(start: Start) -> None:
    app, tries = App("t"), [0]

    @app.tool(effect="read", retry=RetryPolicy(attempts=3, backoff=Backoff(first_seconds=0.0)))
    def flaky() -> str:
        tries[0] += 1
        if tries[0] < 3:
            raise ConnectionError("not now")
        return "at last"

    @app.agent
    async def agent(ctx: Context) -> str:
        return str(await ctx.tool(flaky))

    platform = await start(app)

    assert await platform.run("agent") == "at last"


async def test_a_slow_tool_is_given_up(start: Start) -> None:
    import asyncio

    app = App("t")

    @app.tool(effect="read", timeout_seconds=0.05)
    async def slow() -> None:
        await asyncio.sleep(30)

    @app.agent(max_attempts=1)
    async def agent(ctx: Context) -> None:
        await ctx.tool(slow)

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    assert (await platform.get(run_id))["error"]["type"] == "TimeoutError"


# --- secrets -----------------------------------------------------------------------------------


def secret_app() -> App:
    app = App("t")

    @app.tool(effect="read")
    def call_crm(query: str, token: Annotated[str, Secret("CRM_TOKEN")]) -> str:
        if query == "break":
            raise RuntimeError(f"401 for {token}")
        return f"{query} with {token}"

    @app.agent(max_attempts=1)
    async def agent(ctx: Context, query: str) -> str:
        answer = await ctx.tool(call_crm, query=query)
        ctx.log(f"got {answer}")
        return str(await ctx.llm("ask", f"what is {answer}?", tools=[call_crm]))

    return app


async def test_a_secret_is_in_nothing_that_is_kept(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_TOKEN", TOKEN)
    model = ScriptedModel(
        [
            {"round": 1, "call": {"tool": "call_crm", "arguments": {"query": "q"}}},
            {"round": 2, "call": {"tool": "call_crm", "arguments": {"query": "break"}}},
            {"say": "fine"},
        ]
    )
    platform = await start(secret_app(), model=model, secrets={"CRM_TOKEN": {}})

    good = await platform.submit("agent", {"query": "orders"})
    await platform.run_until_idle()
    bad = await platform.submit("agent", {"query": "break"})
    await platform.run_until_idle()

    assert (await platform.get(good))["output"] == "fine"
    assert (await platform.get(bad))["state"] == "failed"
    for run_id in (good, bad):
        found = await platform.timeline(run_id)
        assert TOKEN not in str(found)
        assert "***" in str(found)
    assert all(TOKEN not in str(question) for question in model.asked)
    assert "401 for ***" in model.asked[2].result
    assert "token" not in str(model.asked[0].tools)


@pytest.mark.parametrize(
    ("rule", "tenant", "told"),
    [
        (None, "acme", "there is no secret 'CRM_TOKEN'; declare it in pilothouse.toml: [secrets.CRM_TOKEN]"),
        ({"agents": ["other"]}, "acme", "is not for agent 'agent' of tenant 'acme'"),
        ({"tenants": {"acme": "ACME_TOKEN"}}, "globex", "is not for agent 'agent' of tenant 'globex'"),
        ({"env": "UNSET_TOKEN"}, "acme", "is empty: set UNSET_TOKEN in the worker's environment"),
    ],
)
async def test_a_secret_is_for_whom_it_is_for(
    start: Start, monkeypatch: pytest.MonkeyPatch, rule: Any, tenant: str, told: str
) -> None:
    monkeypatch.setenv("CRM_TOKEN", TOKEN)
    monkeypatch.setenv("ACME_TOKEN", TOKEN)
    platform = await start(secret_app(), secrets={} if rule is None else {"CRM_TOKEN": rule})

    run_id = await platform.submit("agent", {"query": "orders"}, tenant=tenant)
    await platform.run_until_idle()

    assert told in (await platform.get(run_id))["error"]["message"]


async def test_a_run_of_one_tenant_never_gets_the_secret_of_another(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by its own variable, not by falling back, and not because the other's call came just before."""
    app, seen = App("t"), list[tuple[str, str]]()

    @app.tool(effect="read")
    def call_crm(tenant: str, token: Annotated[str, Secret("CRM_TOKEN")]) -> None:
        seen.append((tenant, token))

    @app.agent(max_attempts=1)
    async def agent(ctx: Context) -> None:
        await ctx.tool(call_crm, tenant=ctx.tenant)

    monkeypatch.setenv("ACME_TOKEN", "of-acme")
    monkeypatch.setenv("GLOBEX_TOKEN", "of-globex")
    rule = {"tenants": {"acme": "ACME_TOKEN", "globex": "GLOBEX_TOKEN"}}
    platform = await start(app, secrets={"CRM_TOKEN": rule})

    for tenant in ("acme", "globex", "acme", "initech"):
        await platform.submit("agent", {}, tenant=tenant)
    await platform.run_until_idle()

    assert sorted(seen) == [("acme", "of-acme"), ("acme", "of-acme"), ("globex", "of-globex")]


# --- what may have happened --------------------------------------------------------------------


class Mailer:
    """A tool whose worker dies in the middle of its first call, after or before the mail went out."""

    def __init__(self, app: App, *, dies_after_sending: bool, **options: Any) -> None:
        self.sent: list[str] = []
        self.platform: TestPlatform | None = None
        self._dies_after = dies_after_sending
        self._calls = 0

        @app.tool(**options)
        async def send(to: str, effect_key: str) -> str:
            self._calls += 1
            if self._calls > 1 or self._dies_after:
                self.sent.append(effect_key)
            if self._calls == 1:
                assert self.platform is not None
                await self.platform.crash_worker()
            return "sent"

        @app.agent
        async def agent(ctx: Context) -> str:
            return str(await ctx.tool(send, to="ada@example.com"))

    async def die(self, start: Start, app: App) -> str:
        self.platform = await start(app)
        run_id = await self.platform.submit("agent")
        await self.platform.run_until_idle()
        await self.platform.advance(seconds=5)
        await self.platform.run_until_idle()
        return run_id


async def test_a_write_that_may_have_happened_asks_a_person(start: Start) -> None:
    app = App("t")
    mailer = Mailer(app, dies_after_sending=True, effect="irreversible")
    run_id = await mailer.die(start, app)
    platform = mailer.platform
    assert platform is not None

    told = await why(platform.db, run_id)
    assert told["state"] == "waiting"
    assert "did the call of tool 'send' in step 'send' happen?" in told["reasons"][0]
    await platform.signal(run_id, "send.happened", {"happened": True, "result": "sent before"})
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == "sent before"
    assert len(mailer.sent) == 1


async def test_what_did_not_happen_is_done_once_more(start: Start) -> None:
    app = App("t")
    mailer = Mailer(app, dies_after_sending=False, effect="write")
    run_id = await mailer.die(start, app)
    platform = mailer.platform
    assert platform is not None

    await platform.signal(run_id, "send.happened", False)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == "sent"
    assert len(mailer.sent) == 1


@pytest.mark.parametrize("options", [{"effect": "idempotent"}, {"effect": "write", "idempotent": True}])
async def test_an_idempotent_call_is_sent_again_with_the_same_key(start: Start, options: dict[str, Any]) -> None:
    app = App("t")
    mailer = Mailer(app, dies_after_sending=True, **options)
    run_id = await mailer.die(start, app)

    assert mailer.platform is not None
    assert (await mailer.platform.get(run_id))["output"] == "sent"
    assert len(mailer.sent) == 2
    assert len(set(mailer.sent)) == 1


@pytest.mark.parametrize(
    ("happened", "output", "times"), [("sent, says the log", "sent, says the log", 1), (None, "sent", 2)]
)
async def test_a_tool_that_can_verify_is_asked(start: Start, happened: str | None, output: str, times: int) -> None:
    app = App("t")
    mailer = Mailer(app, dies_after_sending=True, effect="write", verify=lambda to: happened)
    run_id = await mailer.die(start, app)

    assert mailer.platform is not None
    assert (await mailer.platform.get(run_id))["output"] == output
    assert len(mailer.sent) == times


# --- breakers ----------------------------------------------------------------------------------


async def test_a_tool_that_keeps_failing_rests_and_its_run_waits(start: Start) -> None:
    app, is_down = App("t"), [True]

    @app.tool(effect="read")
    def crm() -> str:
        if is_down[0]:
            raise ConnectionError("down")
        return "up"

    @app.agent(max_attempts=50, backoff=Backoff(first_seconds=0.0))
    async def agent(ctx: Context) -> str:
        return str(await ctx.tool(crm))

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    assert (await platform.get(run_id))["state"] == "waiting"
    assert "tool 'crm' keeps failing" in (await why(platform.db, run_id))["reasons"][0]
    is_down[0] = False
    await platform.advance(seconds=6)
    await platform.run_until_idle()
    assert (await platform.get(run_id))["output"] == "up"


async def test_what_a_model_was_told_of_a_resting_tool_stands(start: Start) -> None:
    app, posted = App("t"), list[str]()
    broken = {"tool": "post", "arguments": {"text": "down"}}
    model = ScriptedModel(
        [
            {"contains": "break", "round": 1, "call": [broken] * 5},
            {"contains": "use", "round": 1, "call": {"tool": "post", "arguments": {"text": "hello"}}},
            {"say": "went on"},
        ]
    )

    @app.tool(effect="idempotent")
    def post(text: str) -> None:
        if text == "down":
            raise ConnectionError("down")
        posted.append(text)

    @app.agent
    async def agent(ctx: Context, what: str) -> str:
        said = await ctx.llm("ask", what, tools=[post])
        await ctx.sleep("until it is up again", hours=1)
        return said

    platform = await start(app, model=model)
    await platform.submit("agent", {"what": "break it"})
    await platform.run_until_idle()
    run_id = await platform.submit("agent", {"what": "use it"})
    await platform.run_until_idle()
    await platform.advance(seconds=7200)
    await platform.run_until_idle()

    found = await platform.timeline(run_id)
    assert found["run"]["output"] == "went on"
    assert "tool 'post' keeps failing and rests" in model.asked[-1].result
    assert [(call["arguments"], call["outcome"]) for call in found["tool_calls"]] == [({"text": "hello"}, "failed")]
    assert posted == []  # the model was told that the call did not go out


# --- bad definitions ---------------------------------------------------------------------------


def test_a_tool_that_cannot_be_used_says_why() -> None:
    app = App("t")

    def anything(*args: int) -> None: ...

    with pytest.raises(ConfigError, match="cannot be filled from JSON"):
        app.tool(anything)
    with pytest.raises(ConfigError, match="effect is one of pure, read, idempotent, write, irreversible"):
        app.tool(effect="deadly")(lambda: None)
    with pytest.raises(ConfigError, match="has no option 'timeout'; did you mean 'timeout_seconds'"):
        app.tool(timeout=3)(lambda: None)  # type: ignore[call-overload]  # as a user may write
    with pytest.raises(ConfigError, match="agent 'x' has no option 'isolated'; did you mean 'isolation'"):
        app.agent(name="x", isolated=True)(lambda ctx: None)  # type: ignore[call-overload]  # as a user may write
    with pytest.raises(ConfigError, match="models take names of up to 64"):
        app.tool(name="send reply")(lambda: None)
    app.tool(name="one")(lambda: None)
    with pytest.raises(ConfigError, match="two tools are named 'one'"):
        app.tool(name="one")(lambda: None)


async def test_a_call_inside_a_step_that_may_have_happened_is_asked_about_too(start: Start) -> None:
    app, sent, gate = App("t"), list[str](), asyncio.Event()

    @app.tool(effect="write")
    async def send(to: str) -> str:
        sent.append(to)
        await gate.wait()
        return to

    @app.agent
    async def nested(ctx: Context) -> str:
        async def work() -> str:
            return str(await ctx.tool(send, to="ada"))

        return await ctx.step("outer", work)

    platform = await start(app)
    run_id = await platform.submit("nested")
    while not sent:  # noqa: ASYNC110 - the call is looked for
        await asyncio.sleep(0.005)
    await platform.crash_worker()
    await platform.run_until_idle()

    told = await why(platform.db, run_id)
    assert "did the call of tool 'send' in step 'outer/send' happen?" in told["reasons"][0]
    await platform.signal(run_id, "outer/send.happened", {"happened": True, "result": "ada"})
    await platform.run_until_idle()
    assert ((await platform.get(run_id))["output"], sent) == ("ada", ["ada"])


async def test_what_a_run_logs_after_a_call_that_is_replayed_is_written(start: Start) -> None:
    """The intent of the call is no answer that is still to come."""
    app = App("t")

    @app.tool(effect="write")
    async def send(to: str) -> str:
        return to

    @app.agent
    async def clerk(ctx: Context) -> None:
        await ctx.tool(send, to="ada")
        await ctx.sleep("nap", seconds=1)
        ctx.log("rested")

    platform = await start(app)
    run_id = await platform.submit("clerk")
    await platform.run_until_idle()
    await platform.advance(seconds=2)
    await platform.run_until_idle()

    assert [line["message"] for line in (await platform.timeline(run_id))["logs"]] == ["rested"]
