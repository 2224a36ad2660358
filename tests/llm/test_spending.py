"""Questions to models within limits: the worst case is reserved, what is affordable is asked, and the rest waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_ai import messages as said
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition

from pilothouse.control import checks, ledger, limits
from pilothouse.control.bookings import model_charges
from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.domain.lanes import Lane
from pilothouse.domain.limits import Limit, Period, Unit
from pilothouse.errors import ConfigError, LimitReached, ModelRefused, ModelUnavailable
from pilothouse.llm.outputs import Output
from pilothouse.llm.prompts import IMAGE_TOKENS, Answer, Asker, Prompt, most_tokens
from pilothouse.store.database import Database
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import LimitOverrun, ModelDegraded
from tests.llm.conftest import ASKER, RUNNING, MakeGateway, Serving, ask

OPENAI, ANTHROPIC, SMALL = "openai:gpt-5-mini", "anthropic:claude-haiku-4-5", "openai:gpt-5-nano"
PRICES = {
    OPENAI: {"input_usd": 1.0, "output_usd": 10.0},
    ANTHROPIC: {"input_usd": 1.0, "output_usd": 10.0},
    SMALL: {"input_usd": 0.0, "output_usd": 0.1},
}
"""A token in is a micro-dollar, one out ten."""

ROUTES = {"default": {"models": [OPENAI], "max_output_tokens": 1000}}
WORST = 10_000
RUNS = 40
UNSIZED = 200_000


async def limit_to(database: Database, amount: int, scope: str = "global", unit: Unit = Unit.MICROUSD) -> None:
    period = Period.RUN if scope.startswith("run") else Period.DAY
    await limits.set_limit(database, Limit(scope, period, unit, amount), principal="test")


async def settle(database: Database, answer: Answer) -> None:
    """As the checkpoint of the step does."""
    charges = model_charges(answer.calls)
    await database.transaction(lambda tx: ledger.settle(tx, charges, UTC_CALENDAR))


def used(database: Database) -> int:
    texts = "SELECT settled_microusd + reserved_microusd AS used FROM balances WHERE account = 'global'"
    return sum(row["used"] for row in database.examine(lambda tx: tx.fetch_all(texts)))


def reservations(database: Database) -> list[str]:
    rows = database.examine(lambda tx: tx.fetch_all("SELECT state FROM reservations ORDER BY created_at"))
    return [row["state"] for row in rows]


async def assert_whole(database: Database) -> None:
    broken = [v for v in await checks.check(database, grace_us=2**60) if not v.holds]
    assert {v.name for v in broken} <= UNHELD, broken


UNHELD = {
    "no running run without a live lease",
    "attempts are numbered without a gap",
    "run counters equal the rows they count",
    "counters of tenants equal the rows they count",
    "a run has an end exactly when it has ended",
}
"""The runs of these tests are rows without anything around them."""


async def test_forty_runs_cannot_pass_a_budget_and_use_what_they_can_afford(
    provider: Serving, connect: MakeGateway, database: Database
) -> None:
    """Several workers; each waits while others hold what may be left, as its runs do."""
    provider.script({"say": "x" * 400})  # a hundred tokens: a tenth of what is reserved for them
    gateways = [connect(routes=ROUTES, prices=PRICES) for _ in range(4)]
    askers = [Asker(f"many-{n}", "triage", "default", Lane.NORMAL, step="s") for n in range(RUNS)]
    database.administer(lambda tx: [tx.execute(RUNNING, id=asker.run_id) for asker in askers])
    budget = 3 * WORST
    await limit_to(database, budget)
    seen: list[int] = []

    async def work(number: int) -> int:
        answered = 0
        while True:
            try:
                answer = await gateways[number % 4].answer(ask(f"Hello {number}.{answered}", asker=askers[number]))
            except LimitReached as error:
                if not error.reached.is_contended:
                    return answered
                await asyncio.sleep(0.01)
                continue
            seen.append(await asyncio.to_thread(used, database))
            await settle(database, answer)
            answered += 1

    answered = await asyncio.gather(*(work(number) for number in range(RUNS)))

    cheapest = 2_560 + 200  # 256 tokens out, which is the least that is asked for, and what goes in
    assert max(seen) <= budget
    assert budget - cheapest < used(database) <= budget
    assert sum(answered) > budget // WORST * 5
    assert set(reservations(database)) == {"settled"}
    await assert_whole(database)


async def test_an_answer_is_made_shorter_until_it_fits(
    provider: Serving, connect: MakeGateway, database: Database
) -> None:
    await limit_to(database, 6_000)

    await connect(routes=ROUTES, prices=PRICES).answer(ask("Hello"))

    (limit,) = provider.limits
    assert 500 < limit < 600


@pytest.mark.parametrize(
    ("scope", "unit"), [("run:*", Unit.MICROUSD), ("user:*", Unit.TOKENS), ("global", Unit.TOKENS)]
)
async def test_every_limit_makes_it_shorter(
    provider: Serving, connect: MakeGateway, database: Database, scope: str, unit: Unit
) -> None:
    await limit_to(database, 6_000 if unit == Unit.MICROUSD else 700, scope, unit)
    asker = Asker("run-1", "triage", "default", Lane.NORMAL, user_id="bob")

    await connect(routes=ROUTES, prices=PRICES).answer(ask("Hello", asker=asker))

    assert 256 <= provider.limits[0] < 700


async def test_the_smaller_route_answers_what_the_usual_one_cannot_afford(
    provider: Serving, connect: MakeGateway, database: Database
) -> None:
    await limit_to(database, 1_000)
    routes = {**ROUTES, "small": {"models": [SMALL]}}

    answer = await connect(routes=routes, prices=PRICES, degrade_route="small").answer(ask("Hello"))

    assert answer.calls[-1].model == SMALL


async def test_near_the_end_of_a_budget_only_the_smaller_route_is_asked(
    provider: Serving, connect: MakeGateway, database: Database, events: list[Event]
) -> None:
    await limit_to(database, 20_000)
    routes = {**ROUTES, "small": {"models": [SMALL]}}
    first = await connect(routes=routes, prices=PRICES, degrade_route="small").answer(ask("Hello"))  # held: the half

    answer = await connect(routes=routes, prices=PRICES, degrade_route="small", degrade_at=0.6).answer(ask("Hello"))

    assert [first.calls[-1].model, answer.calls[-1].model] == [OPENAI, SMALL]
    assert [event.route for event in events if isinstance(event, ModelDegraded)] == ["default"]


async def test_a_kept_answer_does_where_none_is_affordable(
    provider: Serving, connect: MakeGateway, database: Database
) -> None:
    gateway = connect(routes={"default": {**ROUTES["default"], "cache_seconds": 60}}, prices=PRICES)
    await settle(database, await gateway.answer(ask("Hello")))
    await limit_to(database, 1)

    answer = await gateway.answer(ask("Hello"))

    assert [call.outcome for call in answer.calls] == ["cached"]
    with pytest.raises(LimitReached, match=r"the limit of global for \d{4}-\d\d-\d\d is \$0.000001"):
        await gateway.answer(ask("Something else"))


async def test_a_run_waits_for_others_where_a_short_answer_would_fit_without_them(
    provider: Serving, connect: MakeGateway, database: Database
) -> None:
    """What is asked for does not fit beside what is spent; the shortest answer would, once others give back."""
    gateway = connect(routes=ROUTES, prices=PRICES)
    await limit_to(database, WORST + 2_000)
    held = await gateway.answer(ask("Hello"))
    await limit_to(database, WORST + 1_000)

    with pytest.raises(LimitReached) as caught:
        await gateway.answer(ask("Hello", asker=Asker("run-2", "triage", "default", Lane.NORMAL)))
    await settle(database, held)
    await gateway.answer(ask("Hello", asker=Asker("run-2", "triage", "default", Lane.NORMAL)))

    assert caught.value.reached.is_contended
    assert caught.value.reached.wanted < 3_000


async def test_of_two_refusals_the_one_is_told_that_passes_sooner(
    provider: Serving, connect: MakeGateway, database: Database
) -> None:
    """The platform of the first model has nothing left for the day, that of the second waits for others."""
    gateway = connect(routes={"default": {"models": [OPENAI, ANTHROPIC], "max_output_tokens": 1000}}, prices=PRICES)
    await limit_to(database, 0, "platform:openai")
    await limit_to(database, WORST + 1_000, "platform:anthropic")
    await gateway.answer(ask("Hello"))

    with pytest.raises(LimitReached) as caught:
        await gateway.answer(ask("Hello"))

    assert caught.value.reached.account == "platform:anthropic"
    assert caught.value.reached.is_contended


@pytest.mark.parametrize(
    ("fault", "state"),
    [("rate_limited", "settled"), ("unauthorized", "settled"), ("cut_off", "held"), ("empty", "held")],
)
async def test_what_may_have_been_paid_stays_reserved(
    provider: Serving, connect: MakeGateway, database: Database, fault: str, state: str
) -> None:
    await limit_to(database, 100_000)
    provider.script({"fault": fault})

    with pytest.raises(Exception, match="no model of route"):
        await connect(routes=ROUTES, prices=PRICES).answer(ask("Hello"))

    assert reservations(database) == [state]
    assert (used(database) > 0) == (state == "held")


async def test_what_fails_before_anybody_is_asked_is_given_back(connect: MakeGateway, database: Database) -> None:
    gateway = connect(routes={"default": {"models": ["offline:scripted:/nowhere.yaml"]}}, prices={})

    with pytest.raises(ConfigError):
        await gateway.answer(ask("Hello"))

    assert reservations(database) == ["settled"]


async def test_a_provider_that_cannot_be_reached_is_paid_nothing(
    provider: Serving, connect: MakeGateway, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")

    with pytest.raises(ModelUnavailable, match=r"unreachable, 127\.0\.0\.1:1 cannot be reached: .*\[Errno 111\]"):
        await connect(routes={"default": {"models": [OPENAI]}}).answer(ask("Hello"))

    assert reservations(database) == ["settled"]


async def test_more_than_was_reserved_is_booked_and_told(
    provider: Serving, connect: MakeGateway, database: Database, events: list[Event]
) -> None:
    """A provider that does not keep to max_tokens."""
    provider.script({"say": "x" * 8_000})
    await limit_to(database, 12_000)

    answer = await connect(routes=ROUTES, prices=PRICES).answer(ask("Hello"))
    await settle(database, answer)

    (overrun,) = [event for event in events if isinstance(event, LimitOverrun)]
    assert overrun.used_microusd > overrun.reserved_microusd
    assert used(database) == answer.calls[0].cost_microusd > 12_000


async def test_reasoning_that_costs_more_than_other_output_is_reserved_for(
    provider: Serving, connect: MakeGateway, database: Database
) -> None:
    await limit_to(database, 25_000)
    dear = {OPENAI: {"input_usd": 1.0, "output_usd": 10.0, "reasoning_usd": 20.0}}

    await connect(routes=ROUTES, prices=dear).answer(ask("Hello"))

    assert 20_000 < used(database) <= 25_000


# --- how many tokens go in at most -------------------------------------------------------------


class Label(BaseModel):
    """What a message is about."""

    kind: str
    urgency: int
    tags: dict[str, list[int]]


TEXTS = st.text(max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
ARGUMENTS = st.dictionaries(TEXTS, JSON, max_size=4)


@st.composite
def conversations(draw: st.DrawFn) -> list[said.ModelMessage]:
    """A question, and rounds of calls with what came of them, as agents and frameworks make them."""
    first: list[Any] = [said.SystemPromptPart(draw(TEXTS)), said.UserPromptPart(draw(TEXTS | st.lists(TEXTS)))]
    found: list[said.ModelMessage] = [said.ModelRequest(first, instructions=draw(st.none() | TEXTS))]
    for number in range(draw(st.integers(0, 3))):
        id, arguments = f"call-{number}", draw(ARGUMENTS)
        given_arguments: Any = draw(st.sampled_from([arguments, json.dumps(arguments)]))
        call = said.ToolCallPart("search", given_arguments, id)
        found.append(said.ModelResponse([said.TextPart(draw(TEXTS)), call]))
        error: Any = {"type": "missing", "loc": ("a", 1), "msg": draw(TEXTS), "input": draw(JSON)}
        returned = draw(
            st.sampled_from(
                [
                    said.ToolReturnPart("search", draw(JSON), id),
                    said.ToolReturnPart("search", draw(JSON), id, outcome="failed"),
                    said.ToolReturnPart("search", draw(TEXTS | st.just([error])), id, outcome="retried"),
                ]
            )
        )
        found.append(said.ModelRequest([returned]))
    if draw(st.booleans()):
        found.append(
            said.ModelRequest([said.RetryFeedbackPart(draw(TEXTS), retry=said.RetryInfo(cause="model_retry"))])
        )
    return found


TOOL = ToolDefinition(
    name="search",
    description="Looks für ein Wort, 言葉, and its neighbours.",
    parameters_json_schema={"type": "object", "properties": {"word": {"type": "string"}, "n": {"enum": [1, 2]}}},
)


def texts_in(content: Any) -> int:
    """All text of a request as it goes over the wire, in bytes: no tokenizer makes more of it."""
    match content:
        case str():
            return len(content.encode("utf-8", "surrogatepass"))
        case dict():
            return sum(texts_in(value) for value in content.values())
        case list():
            return sum(map(texts_in, content))
        case _:
            return 0


@pytest.mark.parametrize("model", ["openai", "anthropic"])
@given(messages=conversations(), has_tool=st.booleans(), output=st.sampled_from([str, Label, int]))
def test_no_prompt_has_more_tokens_than_are_reserved(
    model: str, messages: list[said.ModelMessage], has_tool: bool, output: type
) -> None:
    """Beside the requests of the providers' real clients."""
    parameters = Output(output).parameters([TOOL] if has_tool else [])

    body = asyncio.run(sent(model, messages, parameters))

    forms = json.dumps(body.get("tools", []), ensure_ascii=False)
    told = texts_in(body["messages"]) + texts_in(body.get("system", "")) + len(forms.encode())
    assert told <= most_tokens(prompt_of(messages, parameters), UNSIZED)


def prompt_of(messages: Sequence[said.ModelMessage], parameters: ModelRequestParameters | None = None) -> Prompt:
    return Prompt(None, messages, parameters or ModelRequestParameters(), ASKER)


async def sent(model: str, messages: list[said.ModelMessage], parameters: ModelRequestParameters) -> dict[str, Any]:
    """The body of the request that the provider's client makes of it."""
    import httpx2

    bodies: list[dict[str, Any]] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        bodies.append(json.loads(request.content))
        return httpx2.Response(400, json={"error": {"message": "enough"}})

    from pilothouse.domain.routes import ModelId
    from pilothouse.llm import providers

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        make = providers._openai_model if model == "openai" else providers._anthropic_model
        made = make(ModelId(model, "m"), "key", None, client)
        prepared = made.prepare_messages(messages, parameters)
        with pytest.raises(Exception, match="enough"):
            await made.request(prepared, {"max_tokens": 10}, parameters)
    return bodies[0]


PIXELS = said.BinaryContent(b"\x89PNG" * 100_000, media_type="image/png")
SOUND = said.BinaryContent(b"RIFF" * 10, media_type="audio/wav")


@pytest.mark.parametrize(
    ("content", "least", "most"),
    [
        (["What is this?", PIXELS], IMAGE_TOKENS, IMAGE_TOKENS + 1_000),
        ([said.ImageUrl("https://example.com/a.png")] * 2, 2 * IMAGE_TOKENS, 2 * IMAGE_TOKENS + 1_000),
        (["Listen", SOUND], UNSIZED, UNSIZED + 1_000),
        (
            [said.DocumentUrl("https://example.com/a.pdf"), said.VideoUrl("https://example.com/b.mp4")],
            UNSIZED,
            UNSIZED + 1_000,
        ),
        ([SOUND, PIXELS], UNSIZED + IMAGE_TOKENS, UNSIZED + IMAGE_TOKENS + 1_000),
    ],
)
def test_what_is_no_text_counts_as_much_as_it_may_be(content: list[Any], least: int, most: int) -> None:
    asked = said.ModelRequest([said.UserPromptPart(content)])
    returned = said.ModelRequest([said.ToolReturnPart("look", content, "1")])

    assert least <= most_tokens(prompt_of([asked]), UNSIZED) <= most
    assert least <= most_tokens(prompt_of([returned]), UNSIZED) <= most


async def test_an_image_is_not_too_long_for_a_route(provider: Serving, connect: MakeGateway) -> None:
    prompt = Prompt(
        None, [said.ModelRequest([said.UserPromptPart(["What is this?", PIXELS])])], Output(str).parameters([]), ASKER
    )

    with pytest.raises(ModelRefused, match="image_url"):  # by the provider here, which takes text alone
        await connect(routes=ROUTES, prices=PRICES).answer(prompt)

    assert provider.requests == 1
