"""The tools that come along: what they do, and what they refuse."""

from __future__ import annotations

import http.server
import json
import shlex
import socket
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations

from examples.support_desk.mail_catcher import MailCatcher
from pilothouse import App, Context
from pilothouse.errors import ConfigError, RunError, ToolError
from pilothouse.testing import ScriptedModel
from pilothouse.tools import (
    McpServer,
    http_request,
    read_file,
    send_email,
    sql_query,
    telegram,
    webhook,
    write_file,
)
from tests.engine.conftest import Start, start

__all__ = ["start"]


class Recorder(http.server.BaseHTTPRequestHandler):
    """Answers everything, and keeps it."""

    seen: list[tuple[str, str, dict[str, str], bytes]] = []  # noqa: RUF012 - one server at a time

    def do_GET(self) -> None:
        if self.path.startswith("/away"):
            self.send_response(302)
            self.send_header("location", self.path.partition("?to=")[2])
            self.end_headers()
            return
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.seen.append((self.command, self.path, dict(self.headers.items()), body))
        self.send_response(404 if "missing" in self.path else 200)
        self.end_headers()
        self.wfile.write(b"x" * 2000)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def web() -> Iterator[str]:
    Recorder.seen.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


async def call(start: Start, tool: Any, secrets: dict[str, Any] | None = None, **arguments: Any) -> Any:
    """What a run gets of a tool, or the message of its refusal."""
    app = App("t")
    app.add_tool(tool)

    @app.agent(max_attempts=1)
    async def agent(ctx: Context) -> Any:
        try:
            return await ctx.tool(tool.name, **arguments)
        except RunError as error:
            return f"refused: {error}"

    platform = await start(app, secrets=secrets or {})
    return await platform.run("agent")


async def test_http_reaches_what_is_on_its_list(start: Start, web: str) -> None:
    answer = await call(start, http_request(allow=[web], max_bytes=100), url=f"{web}/page")

    assert (answer["status"], answer["text"], answer["cut"]) == (200, "x" * 100, True)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "http://api.example.com/",
        "https://api.example.com.evil.example/",
        "https://api.example.com:8443/",
        "https://user@api.example.com/",
        "https://example.com/",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
    ],
)
async def test_http_refuses_what_is_not(start: Start, url: str) -> None:
    answer = await call(start, http_request(allow=["api.example.com", "*.docs.example.com"]), url=url)

    assert "is not on the list of this tool" in answer


async def test_a_redirect_leads_nowhere_else(start: Start, web: str) -> None:
    answer = await call(start, http_request(allow=[web]), url=f"{web}/away?to=http://localhost:1/secret")

    assert "is not on the list of this tool" in answer


async def test_http_with_other_methods_is_a_write(start: Start, web: str) -> None:
    assert http_request(allow=[web]).effect == "read"
    assert http_request(allow=[web], methods=["GET", "POST"]).effect == "write"
    assert "method 'DELETE' is not allowed" in await call(
        start, http_request(allow=[web]), url=f"{web}/", method="DELETE"
    )


async def test_files_are_read_and_written_below_their_folder(start: Start, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret.txt")

    assert await call(start, write_file(tmp_path / "in"), path="a/b.txt", text="Grüße") == 7
    assert await call(start, read_file(tmp_path / "in"), path="a/b.txt") == "Grüße"
    for path in ("../secret.txt", str(tmp_path / "secret.txt"), "link", "a/../../secret.txt"):
        assert "leads out of the folder" in await call(start, read_file(tmp_path / "in"), path=path)
    assert "cannot be read: No such file" in await call(start, read_file(tmp_path / "in"), path="none")
    with pytest.raises(ConfigError, match="is no folder"):
        read_file(tmp_path / "none")


async def test_sql_reads_and_only_reads(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t (n); INSERT INTO t VALUES (1), (2), (3)")
    tool = sql_query(f"sqlite:///{path}", max_rows=2)

    assert await call(start, tool, sql="SELECT n FROM t WHERE n >= :n ORDER BY n", parameters={"n": 1}) == {
        "rows": [{"n": 1}, {"n": 2}],
        "more": True,
    }
    for sql in (
        "DELETE FROM t",
        "PRAGMA query_only = OFF",
        f"ATTACH '{tmp_path}/x.db' AS x",
        "SELEKT",
        "SELECT 1; SELECT 2",
    ):
        assert "the database refused the query" in await call(start, tool, sql=sql)
    assert not (tmp_path / "x.db").exists()
    with pytest.raises(ConfigError, match="is no database"):
        sql_query("mysql://x")


async def test_a_query_without_end_is_stopped(start: Start, tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "e.db").close()
    (tmp_path / "e.db").touch()
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c"

    answer = await call(start, sql_query(f"sqlite:///{tmp_path}/e.db", timeout_seconds=0.2), sql=endless)

    assert "interrupted" in answer


async def test_sql_reads_postgres_and_only_reads(start: Start, postgres_url: str) -> None:
    tool = sql_query(postgres_url)

    assert (await call(start, tool, sql="SELECT %(n)s + 1 AS n", parameters={"n": 1}))["rows"] == [{"n": 2}]
    assert "read-only transaction" in await call(start, tool, sql="CREATE TABLE t (n int)")


async def test_mail_goes_out_once_with_the_key_of_its_effect(start: Start) -> None:
    catcher = MailCatcher()
    await catcher.start()
    tool = send_email(host="127.0.0.1", port=catcher.port, security="none", sender="desk@example.com")

    id = await call(start, tool, to="ada@example.com", subject="Hello", body="Grüße")

    (mail,) = catcher.mails
    assert (mail["To"], mail["Subject"], mail["Message-ID"]) == ("ada@example.com", "Hello", id)
    assert mail.get_content().strip() == "Grüße"
    assert "header does not fit" in await call(start, tool, to="ada@example.com", subject="a\nBcc: all", body="")
    await catcher.stop()


async def test_a_mail_server_that_is_away_is_the_tools_error(start: Start) -> None:
    tool = send_email(host="127.0.0.1", port=1, security="none", sender="desk@example.com")

    assert "did not take the mail" in await call(start, tool, to="a@example.com", subject="s", body="b")


async def test_webhooks_and_telegram_send(start: Start, web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_TOKEN", "123:abcdef")

    assert await call(start, webhook(f"{web}/hook"), data={"a": 1}) == {"status": 200}
    told = telegram(chat_id="42", token_secret="BOT_TOKEN", base_url=web)
    assert await call(start, told, secrets={"BOT_TOKEN": {}}, text="Hello") == {"status": 200}
    assert "was not taken: 404" in await call(start, webhook(f"{web}/missing"), data={})

    (_, _, headers, body), (_, path, _, sent) = Recorder.seen[:2]
    assert len(headers["Idempotency-Key"]) == 32
    assert json.loads(body) == {"a": 1}
    assert path == "/bot123:abcdef/sendMessage"
    assert json.loads(sent) == {"chat_id": "42", "text": "Hello"}


# --- MCP ---------------------------------------------------------------------------------------

SERVER = '''
import os
from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("orders")

@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def lookup(order: int) -> dict:
    """Looks up an order."""
    return {"order": order, "state": "sent"}

@server.tool()
def die() -> str:
    """Ends the server."""
    os._exit(1)

@server.tool()
def refuse() -> str:
    """Fails."""
    raise ValueError("not today")

server.run("stdio")
'''


@pytest.fixture
def orders_server(tmp_path: Path) -> list[str]:
    path = tmp_path / "server.py"
    path.write_text(SERVER, encoding="utf-8")
    return [sys.executable, str(path)]


async def test_tools_of_an_mcp_server_are_tools(start: Start, orders_server: list[str]) -> None:
    app = App("t")
    app.add_tool(McpServer("orders", command=orders_server, effects={"refuse": "pure"}))
    model = ScriptedModel(
        [
            {"when": {"after": "nothing"}, "call": {"tool": "orders_lookup", "arguments": {"order": 17}}},
            {"say": "It was sent."},
        ]
    )

    @app.agent
    async def agent(ctx: Context) -> list[Any]:
        answer = await ctx.llm("ask", "Where is 17?", tools=["orders"])
        return [answer, await ctx.tool("orders_lookup", order=18)]

    platform = await start(app, model=model)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    found = await platform.timeline(run_id)
    assert found["run"]["output"] == ["It was sent.", {"order": 18, "state": "sent"}]
    assert set(model.asked[0].tools) == {"orders_lookup", "orders_die", "orders_refuse"}
    assert {(call["effect"], call["platform"]) for call in found["tool_calls"]} == {("read", "mcp:orders")}


async def test_an_mcp_server_that_dies_is_started_again(start: Start, orders_server: list[str]) -> None:
    app = App("t")
    app.add_tool(McpServer("orders", command=orders_server, effects={"refuse": "read"}))

    @app.agent
    async def agent(ctx: Context) -> list[str]:
        told = []
        for name, arguments in (
            ("orders_lookup", {"order": "x"}),
            ("orders_refuse", {}),
            ("orders_die", {}),
            ("orders_none", {}),
        ):
            try:
                await ctx.tool(name, **arguments)
            except RunError as error:
                told.append(str(error))
        return [*told, str(await ctx.tool("orders_lookup", order=1, step_name="after"))]

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    found = await platform.timeline(run_id)
    wrong, refused, died, unknown, after = found["run"]["output"]
    assert "do not fit tool 'lookup'" in wrong
    assert "Error executing tool refuse" in refused
    assert f"MCP server 'orders' ({shlex.join(orders_server)}) went away during the call" in died
    assert [(each["tool"], each["state"]) for each in found["effects"]] == [("orders_die", "unknown")]
    assert "there is no tool 'orders_none'" in unknown
    assert "'state': 'sent'" in after


@pytest.fixture
def orders_url() -> Iterator[str]:
    server = MCPServer("orders")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def lookup(order: int) -> dict[str, Any]:
        return {"order": order, "state": "sent"}

    listening = socket.create_server(("127.0.0.1", 0))
    serving = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="critical", lifespan="on"))
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    serving.should_exit = serving.force_exit = True
    thread.join(timeout=10)
    listening.close()


async def test_an_mcp_server_is_reached_by_http(start: Start, orders_url: str) -> None:
    app = App("t")
    app.add_tool(McpServer("orders", url=orders_url))

    @app.agent
    async def agent(ctx: Context) -> Any:
        return await ctx.tool("orders_lookup", order=18)

    platform = await start(app)

    assert await platform.run("agent") == {"order": 18, "state": "sent"}


async def test_an_mcp_server_that_is_not_there_says_so(start: Start) -> None:
    for server, where in (
        (McpServer("ghost", command=["/no/such/server"]), "/no/such/server"),
        (McpServer("ghost", url="http://127.0.0.1:1/mcp"), "http://127.0.0.1:1/mcp"),
    ):
        with pytest.raises(ToolError, match=rf"MCP server 'ghost' \({where}\) cannot be reached: [A-Z]\w+Error: "):
            await server.find_tools()
    with pytest.raises(ConfigError, match="either a command or a url"):
        McpServer("none")
    with pytest.raises(ConfigError, match="effect is one of"):
        McpServer("x", url="http://localhost", effects={"a": "deadly"})
