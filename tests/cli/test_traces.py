"""A trace from its submitter over the API and the worker to models, tools and webhooks."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilothouse.llm.fake_provider import FakeProvider
from tests.cli.conftest import Shell, until
from tests.llm.conftest import served
from tests.patience import WAIT_SECONDS
from tests.postgres_server import free_port
from tests.telemetry.receivers import Receiver, receiving

THEIRS = "4bf92f3577b34da6a3ce929d0e0e4736"
APP = """
from pilothouse import App, Context
from pilothouse.tools import http_request
app = App("shop")
app.add_tool(http_request(allow=["{url}"]))

@app.agent
async def kid(ctx: Context) -> str:
    return "done"

@app.agent
async def order(ctx: Context) -> str:
    await ctx.tool("http_request", url="{url}/price")
    await ctx.llm("greet", "hello")
    child = await ctx.start("kid", {{}})
    return await child.result()
"""
SETTINGS = """
[providers.openai]
base_url = "{provider}/v1"
keys = ["OPENAI_API_KEY"]
[routes.default]
models = ["openai:gpt-5-mini"]
"""


@pytest.fixture
def asked() -> list[str | None]:
    """The `traceparent` of each question to the model."""
    return []


@pytest.fixture
def provider(asked: list[str | None]) -> Iterator[str]:
    answers = FakeProvider().app()

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            borne = dict(scope["headers"]).get(b"traceparent")
            asked.append(borne and borne.decode())
        await answers(scope, receive, send)

    with served(noting) as url:
        yield url


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """It takes spans, webhooks and what the tool asks."""
    with receiving() as receiver:
        yield receiver


@pytest.mark.slow
def test_a_trace_goes_from_its_submitter_to_all_that_are_asked(
    tmp_path: Path, receiver: Receiver, provider: str, asked: list[str | None]
) -> None:
    shell, port = Shell(tmp_path), free_port()
    shell.write("agents.py", APP.format(url=receiver.url))
    shell.write("pilothouse.toml", SETTINGS.format(provider=provider))
    chosen = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OPENAI_API_KEY": "none",
        "PILOTHOUSE_WEBHOOK_SECRET": "a-secret-of-many-characters",
    }
    worker = shell.start("up", "agents:app", "--port", str(port), **chosen)
    try:
        until(lambda: "order" in shell("agents", "list").out, "the worker")
        body = json.dumps({"agent": "order", "input": {}, "webhook_url": f"{receiver.url}/hook"}).encode()
        headers = {"content-type": "application/json", "traceparent": f"00-{THEIRS}-00f067aa0ba902b7-01"}
        with urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/runs", body, headers)
        ) as answer:
            run_id = json.load(answer)["id"]
        until(lambda: any(asked.path == "/hook" for asked in receiver.taken), "the webhook")
    finally:
        worker.send_signal(signal.SIGTERM)
        said, _ = worker.communicate(timeout=WAIT_SECONDS)

    told = shell("runs", "show", run_id, "--json").json["run"]
    assert (told["state"], told["trace_id"]) == ("succeeded", THEIRS), said
    of_run = [span for span in receiver.spans if span.trace_id == THEIRS]
    names = {span.name for span in of_run}
    assert {"invoke_agent order", "invoke_agent kid", "attempt 1", "execute_tool http_request"} <= names
    (root,) = [span for span in of_run if span.name == "invoke_agent order"]
    assert (root.parent, root.attributes["pilothouse.run.id"]) == ("00f067aa0ba902b7", run_id)
    (price,) = [each for each in receiver.taken if each.path == "/price"]
    (hook,) = [each for each in receiver.taken if each.path == "/hook"]
    (tool,) = [span for span in of_run if span.name == "execute_tool http_request"]
    (chat,) = [span for span in of_run if span.name == "chat gpt-5-mini"]
    assert price.headers["traceparent"] == f"00-{THEIRS}-{tool.span_id}-01"
    assert asked == [f"00-{THEIRS}-{chat.span_id}-01"]
    assert hook.headers["traceparent"] == f"00-{THEIRS}-{root.span_id}-01"
