"""What happens when something that agents depend on is away: one test for each row of the table in the docs.

The database's own row has more tests, of real outages: tests/crash/test_outage_*.
"""

from __future__ import annotations

import http.server
import shutil
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from pilothouse import App, Context, StepError
from pilothouse.control import effects
from pilothouse.control.effects import EffectFilter
from pilothouse.control.timeline import why
from pilothouse.errors import StoreUnavailable
from pilothouse.llm.fake_provider import FakeProvider
from pilothouse.llm.script import parse_script
from pilothouse.store.database import Database, T, Work
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import EffectFailed, ModelFailed, ToolPutOff
from pilothouse.tools import read_file, send_email, webhook
from tests.engine.conftest import Start
from tests.llm.conftest import served

# --- a model provider is down ------------------------------------------------------------------


async def test_a_model_provider_that_is_down_is_passed_over(
    start: Start, monkeypatch: pytest.MonkeyPatch, events: list[Event]
) -> None:
    down = FakeProvider(parse_script([{"fault": "server_error", "times": 100}]))
    up = FakeProvider(parse_script([{"say": "from the second"}]))
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> str:
        return str(await ctx.llm("draft", "Hello", model="careful"))

    with served(down.app()) as first, served(up.app()) as second:
        monkeypatch.setenv("FIRST_KEY", "k")
        platform = await start(
            app,
            is_frozen=False,
            routes={"careful": {"models": ["first:a", "second:b"]}},
            providers={
                "first": {"base_url": f"{first}/v1", "keys": ["FIRST_KEY"]},
                "second": {"base_url": f"{second}/v1", "keys": ["FIRST_KEY"]},
            },
            prices={name: {"input_usd": 1.0, "output_usd": 1.0} for name in ("first:a", "second:b")},
        )
        run_id = await platform.submit("agent")
        await platform.run_until_idle()

    found = await platform.timeline(run_id)
    assert found["run"]["output"] == "from the second"
    assert [(call["model"], call["outcome"]) for call in found["model_calls"]][-1] == ("second:b", "answered")
    assert "failed" in {call["outcome"] for call in found["model_calls"]}
    assert any(isinstance(event, ModelFailed) for event in events), "no silent failure"


# --- a mail provider says 429 ------------------------------------------------------------------


class MailServer(socketserver.StreamRequestHandler):
    """An SMTP server that takes a mail only after some have been told to come back later."""

    def handle(self) -> None:
        box = self.server.box  # type: ignore[attr-defined]  # the server's own
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline().strip():
            verb = line[:4].upper()
            if verb == b"DATA" and box["busy"] > 0:
                box["busy"] -= 1
                self.wfile.write(b"452 4.5.3 too many mails for now\r\n")
            elif verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                data = b"".join(iter(self.rfile.readline, b".\r\n"))
                box["mails"].append(message_from_bytes(data))
                self.wfile.write(b"250 taken\r\n")
            else:
                self.wfile.write(b"250 fine\r\n")
            if verb == b"QUIT":
                return


@contextmanager
def mail_server(*, busy: int) -> Iterator[tuple[int, dict[str, Any]]]:
    box: dict[str, Any] = {"busy": busy, "mails": []}
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), MailServer) as server:
        server.daemon_threads = True
        server.box = box  # type: ignore[attr-defined]  # for the handler
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], box
        server.shutdown()


async def test_a_mail_provider_that_is_busy_makes_the_run_wait_and_the_mail_goes_out_once(
    database_url: str, start: Start, events: list[Event]
) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> str:
        return str(await ctx.tool("send_email", to="ada@example.com", subject="Hello", body="Hello"))

    with mail_server(busy=3) as (port, box):
        app.add_tool(send_email(host="127.0.0.1", port=port, security="none", sender="desk@example.com"))
        platform = await start(app, url=database_url)
        run_id = await platform.submit("agent")
        await platform.run_until_idle()
        assert (await platform.get(run_id))["state"] == "waiting", "it holds no slot meanwhile"
        assert "too many mails for now" in (await why(platform.db, run_id))["reasons"][0]
        for _ in range(3):
            await platform.advance(seconds=61)
            await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["failures"]) == ("succeeded", 0)
    assert len(box["mails"]) == 1
    assert len([event for event in events if isinstance(event, ToolPutOff)]) == 3
    (row,) = await effects.list_effects(platform.db, EffectFilter())
    assert (row["state"], row["tries"]) == ("succeeded", 4)


# --- a social network answers with an error ----------------------------------------------------


class Network(http.server.BaseHTTPRequestHandler):
    """Fails every post, or leaves without an answer."""

    posts: list[str] = []  # noqa: RUF012 - one server at a time

    def do_POST(self) -> None:
        self.posts.append(self.path)
        self.rfile.read(int(self.headers["content-length"]))
        if "lost" in self.path:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(500)
        self.end_headers()
        self.wfile.write(b"we are sorry")

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def network() -> Iterator[str]:
    Network.posts.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Network) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(("path", "state"), [("/post", "failed"), ("/lost", "unknown")])
async def test_a_social_networks_error_fails_the_run_and_nothing_is_posted_again(
    database_url: str, start: Start, events: list[Event], network: str, path: str, state: str
) -> None:
    app = App("t")
    app.add_tool(webhook(f"{network}{path}", name="post"))

    @app.agent(max_attempts=5)
    async def agent(ctx: Context) -> None:
        await ctx.tool("post", data={"text": "We are hiring"})

    platform = await start(app, url=database_url)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=3600)
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["attempt"], run["error"]["step"]) == ("failed", 1, "post")
    assert Network.posts == [path], "no blind second call"
    (row,) = await effects.list_effects(platform.db, EffectFilter())
    assert row["state"] == state
    (event,) = [event for event in events if isinstance(event, EffectFailed)]
    assert (event.state, event.tool, event.level) == (state, "post", "error")


# --- the database is down ----------------------------------------------------------------------


async def test_a_database_that_goes_away_in_a_governed_call_makes_nothing_happen_twice(
    database_url: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call has been made, its result cannot be written for a while: the worker holds it and writes it then."""
    app, sent = App("t"), list[str]()

    @app.tool(effect="irreversible")
    async def send(to: str) -> str:
        sent.append(to)
        outage(platform.db, monkeypatch, failures=5)
        return "sent"

    @app.agent
    async def agent(ctx: Context) -> str:
        return str(await ctx.tool(send, to="ada@example.com"))

    platform = await start(app, url=database_url)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["output"], run["attempt"], sent) == ("sent", 1, ["ada@example.com"])


def outage(db: Database, monkeypatch: pytest.MonkeyPatch, *, failures: int) -> None:
    """The next so many of the worker's transactions find no database."""
    there, left = db.transaction, iter(range(failures))

    async def transaction(work: Work[T], *, is_patient: bool = False) -> T:
        if is_patient and next(left, None) is not None:
            raise StoreUnavailable("the database is away")
        return await there(work, is_patient=is_patient)

    monkeypatch.setattr(db, "transaction", transaction)


# --- storage is down ---------------------------------------------------------------------------


async def test_files_that_cannot_be_read_fail_softly_and_the_run_goes_on_with_what_it_remembers(
    database_url: str, start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "knowledge"
    folder.mkdir()
    (folder / "prices.txt").write_text("tea 3", encoding="utf-8")
    app = App("t")
    app.add_tool(read_file(folder))

    @app.agent
    async def agent(ctx: Context) -> str:
        try:
            prices = str(await ctx.tool("read_file", path="prices.txt"))
        except StepError as error:
            return f"{await ctx.recall('prices')}, as remembered ({error.error_type})"
        await ctx.remember("prices", prices)
        return prices

    platform = await start(app, url=database_url)
    assert await platform.run("agent") == "tea 3"
    shutil.rmtree(folder)

    assert await platform.run("agent") == "tea 3, as remembered (ToolError)"
