"""A real Prometheus with the files that `monitoring write` writes scrapes a real `pilothouse up`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.cli.conftest import Shell, until
from tests.postgres_server import free_port
from tests.telemetry.prometheus import find

AGENTS = """
from pilothouse import App, Context

app = App("watched")


@app.tool(effect="read")
async def look_up(name: str) -> str:
    return name.upper()


@app.agent(max_attempts=1)
async def greeter(ctx: Context, name: str) -> str:
    if name == "nobody":
        raise ValueError("there is nobody")
    await ctx.llm("draft", f"Greet {name}.")
    return await ctx.tool(look_up, name=name)
"""
TOML = """
app = "agents:app"

[routes.default]
models = ["offline:echo"]
"""


@dataclass(frozen=True, slots=True)
class Watched:
    """A platform, and the Prometheus that watches it."""

    shell: Shell
    platform: subprocess.Popen[str]
    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        answer = httpx2.get(f"{self.url}/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def values(self, expr: str) -> list[float]:
        return [float(each["value"][1]) for each in self.ask("query", query=expr)["result"]]

    def until(self, expr: str, *wanted: float) -> None:
        until(lambda: self.values(expr) == list(wanted), f"{expr} to be {wanted}")

    def alerts(self) -> dict[str, dict[str, Any]]:
        (group,) = self.ask("rules")["groups"]
        return {rule["name"]: rule for rule in group["rules"]}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    prometheus = find("prometheus")
    shell, here, there = Shell(tmp_path_factory.mktemp("watched")), free_port(), free_port()
    shell.write("agents.py", AGENTS)
    shell.write("pilothouse.toml", TOML)
    said = shell("monitoring", "write", "--target", f"127.0.0.1:{here}", "--every-seconds", "2")
    assert said.code == 0, said.err
    platform = shell.start("up", "--port", str(here), LOG_LEVEL="warning")
    command = [prometheus, "--config.file=monitoring/prometheus.yml", "--storage.tsdb.path=data"]
    with (shell.folder / "prometheus.log").open("wb") as log:
        watcher = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{there}"], cwd=shell.folder, stdout=log, stderr=log
        )
    made = Watched(shell, platform, f"http://127.0.0.1:{there}")
    try:
        until(lambda: _answers(f"{made.url}/-/ready") and _answers(f"http://127.0.0.1:{here}/ready"), "both to be up")
        yield made
    finally:
        for process in (platform, watcher):
            process.terminate()
            process.wait(30)
        platform.communicate()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


@pytest.mark.slow
def test_prometheus_knows_what_has_happened_and_every_panel_can_be_drawn(watched: Watched) -> None:
    watched.until('up{job="pilothouse"}', 1)
    for name in ("Ada", "Bob", "nobody"):
        watched.shell("submit", "greeter", json.dumps({"name": name}), "--watch")

    watched.until('agent_tasks_total{agent_name="greeter", status="succeeded"}', 2)
    watched.until('agent_tasks_total{agent_name="greeter", status="failed"}', 1)
    watched.until('pilothouse_tool_calls_total{tool="look_up", outcome="succeeded"}', 2)
    watched.until('agent_task_duration_seconds_bucket{agent_name="greeter", le="3600.0"}', 3)
    watched.until('routing_decisions_total{strategy="default", outcome="primary"}', 2)
    watched.until("sum(pilothouse_tokens_total) > bool 0", 1)
    watched.until("max(histogram_quantile(0.5, agent_task_duration_seconds_bucket)) > bool 0", 1)
    (target,) = watched.ask("targets")["activeTargets"]
    assert target["scrapeUrl"].endswith("/metrics")
    told = {each["metric"] for each in watched.ask("targets/metadata")}
    assert {"agent_tasks_total", "pilothouse_queue_depth", "circuit_breaker_state"} <= told
    until(lambda: not_drawn(watched) <= NOTHING_TO_DRAW, "every panel to have something to draw")


NOTHING_TO_DRAW = {
    "Alerts that fire",
    "Attempts",  # all that failed did so before the second scrape
    "Budgets used",  # no limit is set
    "Circuit breakers",  # none has counted a failure
    "Cost per hour by model",  # that of the test costs nothing
    "Cost per run",
    "Error rate by agent",  # the history has one point so far
    "Failures",
    "Next deadline of an approval",
    "Runs ended",
    "Runs that asked people",
    "Spent in 24 h",
}
"""Panels whose question Prometheus understands, and has no answer to here."""


def not_drawn(watched: Watched) -> set[str]:
    return {title for title, exprs in panels(watched.shell.folder) if not any(map(watched.values, exprs))}


def panels(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each panel's title, and what it asks."""
    for panel in json.loads((folder / "monitoring" / "grafana.json").read_text("utf-8"))["panels"]:
        if panel["type"] != "row":
            exprs = [target["expr"] for target in panel["targets"]]
            yield panel["title"], [each.replace("$agent", ".*").replace("$__rate_interval", "5m") for each in exprs]


@pytest.mark.slow
def test_prometheus_takes_the_rules_and_sees_that_the_platform_has_gone(watched: Watched) -> None:
    wanted = {("ok", "inactive")}
    until(lambda: {(each["health"], each["state"]) for each in watched.alerts().values()} == wanted, "no alert")

    watched.platform.terminate()

    until(lambda: watched.alerts()["PilothouseAbsent"]["state"] == "pending", "the alert")


def test_files_are_not_replaced_unasked(shell: Shell) -> None:
    first = shell("monitoring", "write", "ops", "--json")
    again = shell("monitoring", "write", "ops")
    wrong = shell("monitoring", "write", "--target", "http://me")

    assert first.json == {"folder": "ops", "files": ["grafana.json", "pilothouse.rules.yml", "prometheus.yml"]}
    assert (again.code, "--overwrite" in again.err) == (1, True)
    assert shell("monitoring", "write", "ops", "--overwrite").code == 0
    assert (wrong.code, "'http://me' is no HOST:PORT" in wrong.err) == (1, True)
