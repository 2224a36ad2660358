"""A fake provider on a real port, and gateways to it with the providers' real clients."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any

import pytest
import uvicorn

from pilothouse.config import Settings
from pilothouse.domain.lanes import Lane
from pilothouse.llm.fake_provider import FakeProvider
from pilothouse.llm.gateway import Gateway
from pilothouse.llm.messages import first_messages
from pilothouse.llm.outputs import Output
from pilothouse.llm.prompts import Asker, Prompt
from pilothouse.llm.script import echo, parse_script
from pilothouse.platform import make_gateway
from pilothouse.store.database import Database, Transaction
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import Emitter
from tests.patience import WAIT_SECONDS

RUNNING = """INSERT INTO runs (id, tenant, agent, lane, priority, state, attempt, max_attempts, max_losses, input,
root_id, created_at) VALUES (:id, 'default', 'triage', 'normal', 0, 'running', 1, 3, 5, '{}', :id, 0)"""

ASKER = Asker("run-1", "triage", "default", Lane.NORMAL)


class Serving(FakeProvider):
    """A fake provider, where it answers, and the output limits that it was asked to keep."""

    url: str

    @property
    def limits(self) -> list[int]:
        return [asked.settings["max_tokens"] for asked in self.asked]

    def script(self, *entries: Mapping[str, Any]) -> None:
        """From now on it answers so."""
        self.responder = parse_script([dict(entry) for entry in entries])


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Where an ASGI application answers, for as long as it does."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(timeout=WAIT_SECONDS)
        listening.close()


StartProvider = Callable[..., Serving]


@pytest.fixture
def start_provider() -> Iterator[StartProvider]:
    with ExitStack() as stack:

        def start(**options: Any) -> Serving:
            provider = Serving(**{"responder": echo, **options})
            provider.url = stack.enter_context(served(provider.app()))
            return provider

        yield start


@pytest.fixture
def provider(start_provider: StartProvider, monkeypatch: pytest.MonkeyPatch) -> Serving:
    """One that is OpenAI and Anthropic for whoever asks the environment."""
    started = start_provider()
    monkeypatch.setenv("OPENAI_BASE_URL", f"{started.url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", started.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai-test")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-anthropic-test")
    return started


def begin_runs(database: Database) -> None:
    """Whoever asks a model does so for a run that it holds."""

    def work(tx: Transaction) -> None:
        for run_id in ("run-1", "run-2"):
            tx.execute(RUNNING, id=run_id)

    database.administer(work)


MakeGateway = Callable[..., Gateway]


@pytest.fixture
async def connect(database: Database, events: list[Event]) -> AsyncIterator[MakeGateway]:
    """Makes gateways on one database, as several workers have them."""
    async with AsyncExitStack() as stack:

        def make(**settings: Any) -> Gateway:
            gateway = make_gateway(database, Settings(**settings), Emitter([events.append]))
            assert gateway is not None
            stack.push_async_callback(gateway.close)
            return gateway

        begin_runs(database)
        yield make


@pytest.fixture
def events() -> list[Event]:
    return []


def ask(text: str, *, route: str | None = None, output: Any = str, **options: Any) -> Prompt:
    """A prompt as `ctx.llm` makes it."""
    messages = first_messages(None, [{"role": "user", "content": text}])
    return Prompt(route, messages, Output(output).parameters([]), options.pop("asker", ASKER), **options)
