"""A site to look at: `pilothouse up` as a process of its own, with agents that do a little of everything."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

WAIT_SECONDS = 30.0
START_SECONDS = 75.0
"""A busy machine is slow, not wrong; less than a test may take."""

NOTHING: Mapping[str, str] = {}

AGENTS = '''
from typing import Literal

from pydantic import BaseModel, Field

from pilothouse import App, Context

app = App("desk")


class Ticket(BaseModel):
    """What a customer wrote."""

    sender: str = Field(description="Who wrote it.")
    text: str
    urgent: bool = False
    language: Literal["en", "fr", "ar"] = "en"
    orders: int = 1


@app.tool(effect="write", platform="payments", cost_usd=0.02)
async def pay_back(order: int, amount_usd: float) -> str:
    """Pays money back."""
    return f"paid {amount_usd}"


@app.tool(effect="read", platform="orders")
async def look_up(order: int) -> dict:
    """Finds an order."""
    return {"order": order, "items": ["lamp"]}


@app.agent(lane="critical")
async def triage(ctx: Context, ticket: Ticket) -> dict:
    """Answers a ticket."""
    order = await ctx.tool(look_up, order=7)
    draft = await ctx.llm("draft", f"Answer: {ticket.text}")
    return {"draft": str(draft), "order": order, "said": ticket.text}


@app.agent
async def refund(ctx: Context, order: int, amount: float) -> str:
    decision = await ctx.approve(
        "refund", amount_usd=amount, recommendation="The lamp arrived broken.", risk=2,
        arguments={"order": order, "amount_usd": amount},
    )
    return await ctx.tool(pay_back, order=order, amount_usd=decision.arguments["amount_usd"])


@app.agent(max_attempts=1)
async def broken(ctx: Context, text: str = "") -> None:
    await ctx.step("try", lambda: text)
    raise RuntimeError(f"the warehouse said no: {text}")


@app.agent
async def waits(ctx: Context) -> object:
    return await ctx.wait_for("go")


@app.agent
async def talks(ctx: Context, size: int) -> str:
    return "x" * size


app.schedule("nightly", agent="waits", cron="0 2 * * *", timezone="Europe/Paris", input={})
'''

SETTINGS = """
app = "agents:app"
offline_model = "offline:echo"

[routes.default]
models = ["openai:gpt-5-mini"]
max_output_tokens = 200
"""


class Site:
    """A project in a folder, and its server, which can be stopped and started again on the same port."""

    def __init__(
        self, folder: Path, agents: str = AGENTS, settings: str = SETTINGS, environment: Mapping[str, str] = NOTHING
    ) -> None:
        self.folder = folder
        self._environment = _environment() | dict(environment)
        (folder / "agents.py").write_text(agents, "utf-8")
        (folder / "pilothouse.toml").write_text(settings, "utf-8")
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key: str | None = None
        """What the site's own requests present, once it has keys."""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self.folder / "up.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pilothouse", "up", "--port", str(self.port)],
            cwd=self.folder,
            env=self._environment,
            stdout=log,
            stderr=log,
        )
        log.close()
        try:
            until(self._answers, "the server", START_SECONDS)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(WAIT_SECONDS) == 0, (self.folder / "up.log").read_text("utf-8")

    def command(self, *arguments: str) -> Any:
        """What the command line says, as JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "pilothouse", *arguments, "--json"],
            cwd=self.folder,
            env=self._environment | ({} if self.key is None else {"PILOTHOUSE_API_KEY": self.key}),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def submit(self, agent: str, input: object, *, tenant: str = "default") -> str:
        run = {"agent": agent, "input": input, "tenant": tenant}
        return str(self._ask("/api/v1/runs", json.dumps(run).encode())["id"])

    def get(self, path: str) -> Any:
        return self._ask(path)

    def _ask(self, path: str, data: bytes | None = None) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(f"{self.url}{path}", data, headers)
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            return json.load(answer)

    def until_state(self, run_id: str, state: str) -> None:
        until(lambda: self.get(f"/api/v1/runs/{run_id}")["state"] == state, f"{run_id} to be {state}")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "up.log").read_text("utf-8")
        try:
            return bool(self.get("/ready")["checks"]["workers"]["status"] == "ready")
        except OSError:
            return False


def until(look: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PILOTHOUSE_", "DATABASE_"))}
    return {**kept, "NO_COLOR": "1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
