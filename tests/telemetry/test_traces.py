"""Traces: one for a run with all its attempts, steps, calls and children; and what it bears to those it asks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pilothouse import App, Context, __version__
from pilothouse.clock import new_id
from pilothouse.config import load_settings
from pilothouse.control import approvals
from pilothouse.control.approvals import Said
from pilothouse.control.attempts import ClaimedRun
from pilothouse.domain.approvals import Decider
from pilothouse.domain.lanes import Lane
from pilothouse.domain.traces import format_traceparent, is_in_sample, parse_traceparent, trace_of
from pilothouse.errors import ConfigError
from pilothouse.telemetry.conventions import Kind, Span
from pilothouse.telemetry.otlp import Encoder
from pilothouse.tools import http_request
from tests.engine import isolated_agents
from tests.telemetry.receivers import Receiver, Seen, receiving
from tests.telemetry.working import Working, working

THEIRS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HEX = "0123456789abcdef"


def id_of(digits: int) -> some.SearchStrategy[str]:
    return some.text(HEX, min_size=digits, max_size=digits).filter(lambda text: int(text, 16) > 0)


@given(id_of(32), id_of(16), some.booleans())
def test_a_traceparent_is_read_as_it_was_written(trace_id: str, span_id: str, is_sampled: bool) -> None:
    read = parse_traceparent(format_traceparent(trace_id, span_id, is_sampled=is_sampled))

    assert read == (trace_id, span_id, is_sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        THEIRS.upper(),
        THEIRS.replace("00-", "ff-", 1),
        THEIRS + "-more",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        "<script>",
    ],
)
def test_what_is_no_traceparent_is_ignored(text: str) -> None:
    assert parse_traceparent(text) is None


def test_a_later_version_may_say_more() -> None:
    assert parse_traceparent(THEIRS.replace("00-", "cc-", 1) + "-more") is not None


attributes = some.dictionaries(
    some.text(min_size=1, max_size=200),
    some.one_of(some.text(max_size=300), some.integers(-(2**63), 2**63 - 1), some.booleans(), some.floats()),
)


@given(id_of(32), id_of(16), some.none() | id_of(16), attributes, some.none() | some.text(min_size=1))
def test_spans_are_written_as_the_protocol_s_own_messages_read_them(
    trace_id: str, span_id: str, parent: str | None, attributes: dict[str, Any], error: str | None
) -> None:
    span = Span("näme", Kind.CLIENT, trace_id, span_id, parent, 1_795_302_974_614_000, 5, attributes, error)

    request = ExportTraceServiceRequest.FromString(Encoder("service" * 50, "one").encode([span, span]))

    (group,) = request.resource_spans
    (scope,) = group.scope_spans
    assert [pair.value.string_value for pair in group.resource.attributes] == ["service" * 50, __version__, "one"]
    assert (scope.scope.name, len(scope.spans)) == ("pilothouse", 2)
    read = scope.spans[1]
    assert (read.name, read.kind, read.trace_id.hex(), read.span_id.hex()) == ("näme", 3, trace_id, span_id)
    assert read.parent_span_id.hex() == (parent or "")
    assert read.start_time_unix_nano == read.end_time_unix_nano == 1_795_302_974_614_000_000
    values = [getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in read.attributes]
    expected = {**attributes, "error.type": error} if error else attributes
    assert repr(dict(zip((pair.key for pair in read.attributes), values, strict=True))) == repr(expected)
    assert (read.status.code, read.status.message) == ((2, error) if error else (1, ""))


def claim(**changes: Any) -> ClaimedRun:
    run_id = new_id()
    made = ClaimedRun(run_id, 1, "t", "a", Lane.NORMAL, "{}", 0, 0, 3, 3, None, run_id, None, 0, 0, False)
    return made._replace(**changes)


@given(some.floats(0.05, 0.95))
def test_about_a_share_of_traces_is_recorded_and_children_follow_their_parent(share: float) -> None:
    runs = [claim() for _ in range(400)]

    chosen = [trace_of(run, share).is_sampled for run in runs]

    assert abs(sum(chosen) / len(runs) - share) < 0.2
    children = [claim(root_id=run.run_id, parent_id=run.run_id) for run in runs]
    assert [trace_of(child, share).is_sampled for child in children] == chosen
    assert not is_in_sample(runs[0].root_id.replace("-", ""), 0.0)


# --- a worker and a receiver ---------------------------------------------------------------------


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def shop(asked_url: str = "http://127.0.0.1:1") -> App:
    app = App("shop")
    app.add_tool(http_request(allow=[asked_url]))

    async def double(number: int) -> int:
        return number * 2

    def broken() -> None:
        raise ValueError("no")

    @app.agent
    async def kid(ctx: Context, number: int) -> int:
        return await ctx.step("double", double, number)

    @app.agent(max_attempts=1)
    async def order(ctx: Context, number: int = 1) -> str:
        async def outer() -> int:
            return await ctx.step("inner", double, number)

        await ctx.step("outer", outer)
        await ctx.tool("http_request", url=f"{asked_url}/price")
        text: str = await ctx.llm("greet", "what the customer said")
        child = await ctx.start("kid", {"number": number})
        await child.result()
        await ctx.approve("ship", recommendation="do it", reasoning="paid", arguments={}, risk=2)
        try:
            await ctx.step("broken", broken)
        except Exception:  # noqa: BLE001 - whatever it is, the run goes on
            return text
        return "not broken?"

    return app


async def approve(work: Working) -> None:
    rows: list[Any] = []
    while not rows:  # the fixture's time-out ends it
        await asyncio.sleep(0.01)
        rows = await approvals.list_approvals(work.platform.db, approvals.Filter(state="pending"))
    await approvals.decide(work.platform.db, rows[0]["id"], Said("approve"), Decider("boss"))


async def order(work: Working, traceparent: str | None = None) -> str:
    run_id = await work.submit("order", traceparent)
    await approve(work)
    ended = await work.ended(run_id)
    assert ended["state"] == "succeeded", ended["error"]
    return run_id


async def test_a_run_its_attempts_and_its_children_are_one_trace(receiver: Receiver, tmp_path: Path) -> None:
    chosen = {"otlp_endpoint": receiver.url, "offline_model": "offline:echo", "otlp_headers": "x-key=1,x-b=2"}
    async with working(shop(receiver.url), tmp_path, **chosen) as work:
        run_id = await order(work)

    spans = receiver.spans
    assert {span.trace_id for span in spans} == {run_id.replace("-", "")}
    ids = [span.span_id for span in spans]
    assert len(set(ids)) == len(ids)
    root = only(spans, "invoke_agent order")
    assert (root.parent, root.attributes["gen_ai.operation.name"], root.service) == ("", "invoke_agent", "shop")
    assert all(span.parent in ids for span in spans if span is not root)
    assert parent_of(spans, "inner") == "outer"
    assert parent_of(spans, "outer") == "attempt 1"
    assert parent_of(spans, "invoke_agent kid") == "invoke_agent order"
    assert parent_of(spans, "approval ship") == "invoke_agent order"
    assert only(spans, "broken").failed
    assert only(spans, "approval ship").attributes["pilothouse.approval.decided_by"] == "boss"
    assert {span.attributes["pilothouse.waited_after"] for span in spans if span.name == "waiting"} == {"suspended"}
    chat = only(spans, "chat echo")
    assert chat.attributes["gen_ai.usage.input_tokens"] > 0
    assert chat.attributes["gen_ai.provider.name"] == "offline"
    sent = [each for each in receiver.taken if each.path == "/v1/traces"]
    assert {each.headers["x-key"] for each in sent} == {"1"}
    assert not any(b"what the customer said" in each.body for each in sent), "content is off by default"
    (price,) = [each for each in receiver.taken if each.path == "/price"]
    tool = only(spans, "execute_tool http_request")
    assert price.headers["traceparent"] == f"00-{root.trace_id}-{tool.span_id}-01"


async def test_a_submitter_s_trace_goes_on_in_the_run_and_its_children(receiver: Receiver, tmp_path: Path) -> None:
    async with working(
        shop(receiver.url), tmp_path, otlp_endpoint=receiver.url, offline_model="offline:echo", trace_content=True
    ) as work:
        await order(work, THEIRS)
        lines = work.lines

    spans = receiver.spans
    assert {span.trace_id for span in spans} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert only(spans, "invoke_agent order").parent == "00f067aa0ba902b7"
    assert parent_of(spans, "invoke_agent kid") == "invoke_agent order"
    assert "what the customer said" in only(spans, "chat echo").attributes["gen_ai.input.messages"]
    assert "/price" in only(spans, "execute_tool http_request").attributes["gen_ai.tool.call.arguments"]
    attempts = {span.span_id for span in spans if span.name.startswith("attempt")}
    told = [line for line in lines if line["message"] in ("run.settled", "tool.called", "model.answered")]
    assert {line["trace_id"] for line in told} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert {line["span_id"] for line in told} <= attempts
    assert not any("what the customer said" in str(line) for line in lines), "content never reaches the logs"


async def test_what_the_submitter_does_not_record_is_not_sent(receiver: Receiver, tmp_path: Path) -> None:
    async with working(shop(receiver.url), tmp_path, otlp_endpoint=receiver.url) as work:
        run_id = await work.submit("kid", THEIRS.removesuffix("01") + "00", number=1)
        await work.ended(run_id)
        await work.ended(await work.submit("kid", number=1))

    assert {span.trace_id for span in receiver.spans} != {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert only(receiver.spans, "invoke_agent kid").parent == ""


async def test_without_tracing_nothing_is_passed_on(receiver: Receiver, tmp_path: Path) -> None:
    async with working(shop(receiver.url), tmp_path, offline_model="offline:echo") as work:
        await order(work)

    (price,) = receiver.taken
    assert "traceparent" not in price.headers


async def test_an_isolated_agent_is_traced_like_others(receiver: Receiver, tmp_path: Path) -> None:
    chosen = {"otlp_endpoint": receiver.url, "offline_model": "offline:echo", "trace_content": True}
    async with working(isolated_agents.app.only(["calls"]), tmp_path, **chosen) as work:
        run = await work.ended(await work.submit("calls", words=["oh"]))

    assert run["state"] == "succeeded", run["error"]
    assert parent_of(receiver.spans, "chat echo") == "attempt 1"
    tool = only(receiver.spans, "execute_tool shout")
    assert (tool.attributes["gen_ai.tool.call.arguments"], tool.failed) == ('{"word":"oh"}', False)


def only(spans: list[Seen], name: str) -> Seen:
    (found,) = [span for span in spans if span.name == name]
    return found


def parent_of(spans: list[Seen], name: str) -> str:
    parent = only(spans, name).parent
    return next(span.name for span in spans if span.span_id == parent)


# --- what can be wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("otlp_endpoint", "localhost:4318", "write it as http://HOST:PORT"),
        ("otlp_endpoint", "http://127.0.0.1:4317", "4317 is OTLP over gRPC"),
        ("otlp_endpoint", "http://jaeger:14268/api/traces", "Jaeger's old protocol"),
        ("otlp_headers", "no equals sign", "name=value"),
        ("mlflow_tracking_uri", "sqlite:///mlruns.db", "write it as http://HOST:PORT"),
        ("log_destination", "http://logs.example.com", "only by https://"),
        ("log_destination", "stderr,syslog", "use stderr, stdout, file:PATH or https://"),
    ],
)
def test_a_wrong_place_is_told_at_the_start(name: str, value: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_settings(**{name: value})
