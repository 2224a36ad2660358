"""What is shipped for Prometheus and Grafana: it names only metrics and labels that there are, and each alert fires
when it should, and only then.
"""

from __future__ import annotations

import json
import re
import subprocess
from importlib.resources import as_file, files
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from pilothouse.domain.alert_rules import RULES
from pilothouse.telemetry.catalogue import CATALOGUE
from pilothouse.telemetry.metrics import render_metrics
from tests.telemetry.prometheus import find

RUNBOOKS = files("pilothouse").joinpath("runbooks")
SHIPPED = files("pilothouse.telemetry").joinpath("monitoring")
DASHBOARD: dict[str, Any] = json.loads(SHIPPED.joinpath("grafana.json").read_text("utf-8"))
ALERTS: list[dict[str, Any]] = [
    rule
    for group in YAML(typ="safe").load(SHIPPED.joinpath("pilothouse.rules.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
NAME = re.compile(r"(?<![\w$\"{.-])[a-z]+_[a-z_]+\b(?!\s*\()")
BRACES = re.compile(r"\{([^}]*)\}")
GROUPING = re.compile(r"\b(?:by|on|without) \(([^)]*)\)")
OF_THE_SCRAPE = {"instance", "job", "le"}
FUNCTIONS = {"histogram_quantile", "predict_linear"}


def expressions() -> list[str]:
    return [rule["expr"] for rule in ALERTS] + [expr for panel in drawn() for expr in exprs_of(panel)]


def drawn() -> list[dict[str, Any]]:
    """The panels that show something."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def exprs_of(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def exposed() -> dict[str, set[str]]:
    """The names that `/metrics` has, each with its labels."""
    text = render_metrics({}, (1.0,)).decode()
    found: dict[str, set[str]] = {name: set() for name in re.findall(r"^# TYPE (process_\S+)", text, re.MULTILINE)}
    for metric in CATALOGUE:
        assert f"# TYPE {metric.name} {metric.kind}" in text
        ends = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        found |= {f"{metric.name}{end}": set(metric.labels) for end in ends}
    return found


@pytest.mark.parametrize("expr", expressions())
def test_it_names_only_metrics_and_labels_that_there_are(expr: str) -> None:
    known = exposed()
    matched = {part.partition("=")[0].strip("! ~") for braces in BRACES.findall(expr) for part in braces.split(",")}
    grouped = {label.strip() for labels in GROUPING.findall(expr) for label in labels.split(",")}
    bare = GROUPING.sub("", BRACES.sub("", expr))

    names = set(NAME.findall(bare)) - FUNCTIONS

    assert names
    assert names <= known.keys(), f"{names - known.keys()} is not in /metrics"
    labels = set.union(*(known[name] for name in names)) | OF_THE_SCRAPE
    assert (matched | grouped) - {""} <= labels, f"{(matched | grouped) - labels} is no label of {names}"


def test_a_panel_says_what_it_shows_in_which_unit_and_lies_on_no_other() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]

    assert len(set(ids)) == len(ids)
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert not [(one, two) for one, two in combinations(places, 2) if overlap(one, two)]
    for panel in drawn():
        assert panel["title"], panel
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        refs = [target["refId"] for target in panel["targets"]]
        assert refs, panel["title"]
        assert len(set(refs)) == len(refs)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(drawn()))) - {"__rate_interval"}
    assert used == variables


def overlap(one: dict[str, int], two: dict[str, int]) -> bool:
    beside = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
    above = one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]
    return not beside and not above


def test_an_alert_says_how_grave_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in ALERTS]

    assert len(set(names)) == len(names)
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        command, _, runbook = rule["annotations"]["runbook"].rpartition(" ")
        assert command == "pilothouse runbook show"
        assert RUNBOOKS.joinpath(f"{runbook}.md").is_file(), runbook
        assert rule["labels"].get("rule", RULES[0].name) in {known.name for known in RULES}


class Case(NamedTuple):
    """Series under which an alert fires after so many minutes, and the change of them under which it does not.

    A series is a metric with its labels, and values as promtool writes them, one a minute.
    """

    fires: dict[str, str]
    quiet: dict[str, str]
    minute: int = 20


AGENT = 'agent="a", lane="normal", instance="i"'
DAY = 'account="global", period="day", unit="usd", instance="i"'
CASES = {
    "PilothouseAbsent": Case({}, {"pilothouse_build_info": "1x30"}),
    "PilothouseNoWorker": Case(
        {'pilothouse_workers{state="running"}': "0x30"}, {'pilothouse_workers{state="running"}': "1x30"}
    ),
    "PilothouseSchedulerLate": Case(
        {'pilothouse_chore_age_seconds{chore="seal"}': "0+60x30"},
        {
            'pilothouse_chore_age_seconds{chore="seal"}': "1x30",
            'pilothouse_chore_age_seconds{chore="retention"}': "0+60x30",
        },
    ),
    "PilothouseQueueAge": Case(
        {f"pilothouse_queue_oldest_age_seconds{{{AGENT}}}": "0+60x30"},
        {f"pilothouse_queue_oldest_age_seconds{{{AGENT}}}": "299x30"},
    ),
    "PilothouseQueueDepth": Case(
        {
            f'pilothouse_queue_depth{{{AGENT}, state="queued"}}': "101x30",
            f"pilothouse_queue_oldest_age_seconds{{{AGENT}}}": "1x30",
        },
        {
            f'pilothouse_queue_depth{{{AGENT}, state="queued"}}': "101x30",
            f"pilothouse_queue_oldest_age_seconds{{{AGENT}}}": "0x30",
        },
    ),
    "PilothouseSlotsUsed": Case(
        {"pilothouse_worker_utilization_ratio": "0.9x30"}, {"pilothouse_worker_utilization_ratio": "0.8x30"}
    ),
    "PilothouseFailureRate": Case(
        {
            'agent_tasks_total{agent_name="a", status="failed", instance="i"}': "0+1x30",
            'agent_tasks_total{agent_name="a", status="succeeded", instance="i"}': "0+3x30",
            'agent_tasks_total{agent_name="a", status="cancelled", instance="i"}': "0+90x30",
        },
        {
            'agent_tasks_total{agent_name="few", status="failed", instance="i"}': "0x18 1x12",
            'agent_tasks_total{agent_name="a", status="failed", instance="i"}': "0+1x30",
            'agent_tasks_total{agent_name="a", status="succeeded", instance="i"}': "0+5x30",
        },
    ),
    "PilothouseToolFailureRate": Case(
        {
            'pilothouse_tool_calls_total{agent="a", tool="t", outcome="failed", instance="i"}': "0+1x30",
            'pilothouse_tool_calls_total{agent="b", tool="t", outcome="succeeded", instance="i"}': "0+3x30",
        },
        {
            'pilothouse_tool_calls_total{agent="a", tool="t", outcome="failed", instance="i"}': "0+1x30",
            'pilothouse_tool_calls_total{agent="b", tool="t", outcome="succeeded", instance="i"}': "0+5x30",
        },
    ),
    "PilothouseAttemptsLost": Case(
        {f'pilothouse_attempts_total{{{AGENT}, outcome="lost"}}': "0+1x30"},
        {
            f'pilothouse_attempts_total{{{AGENT}, outcome="lost"}}': "0x18 1x12",
            f'pilothouse_attempts_total{{{AGENT}, outcome="failed"}}': "0+9x30",
        },
    ),
    "PilothouseBreakerOpen": Case(
        {'circuit_breaker_state{dependency="tool:t", agent_id=""}': "1x30"},
        {'circuit_breaker_state{dependency="tool:t", agent_id=""}': "0x30"},
    ),
    "PilothouseBudgetForecast": Case(
        {f"pilothouse_budget_used{{{DAY}}}": "50+1x90", f"pilothouse_budget_limit{{{DAY}}}": "150x90"},
        {f"pilothouse_budget_used{{{DAY}}}": "80+0.1x90", f"pilothouse_budget_limit{{{DAY}}}": "150x90"},
        40,
    ),
    "PilothouseBudgetExhausted": Case(
        {
            f"pilothouse_budget_used{{{DAY}}}": "140x30",
            f"pilothouse_budget_reserved{{{DAY}}}": "10x30",
            f"pilothouse_budget_limit{{{DAY}}}": "150x30",
        },
        {
            f"pilothouse_budget_used{{{DAY}}}": "140x30",
            f"pilothouse_budget_reserved{{{DAY}}}": "0x30",
            f"pilothouse_budget_limit{{{DAY}}}": "150x30",
        },
    ),
    "PilothouseApprovalDeadline": Case(
        {"pilothouse_approvals_next_deadline_seconds": "1800-60x30"},
        {"pilothouse_approvals_next_deadline_seconds": "2400-60x30"},
    ),
    "PilothouseEffectsUnknown": Case({"pilothouse_effects_unknown": "1x30"}, {"pilothouse_effects_unknown": "0x30"}),
    "PilothouseDeadLettersGrowing": Case(
        {"pilothouse_dead_letters": "50+1x30"}, {"pilothouse_dead_letters": "50+0.1x30"}
    ),
    "PilothouseSwitchTripped": Case(
        {"pilothouse_switches_tripped": "1x90"}, {"pilothouse_switches_tripped": "1x40 0x50"}, 70
    ),
    "PilothouseAuditSealLate": Case(
        {"pilothouse_audit_seal_lag_seconds": "0+60x30"}, {"pilothouse_audit_seal_lag_seconds": "10x30"}
    ),
    "PilothousePoolExhausted": Case(
        {'db_pool_waiting{instance="i"}': "2x30"}, {'db_pool_waiting{instance="i"}': "0 0 2 2 0 0 2 2 0x20"}
    ),
}


def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    promtool = find("promtool")
    assert CASES.keys() == {rule["alert"] for rule in ALERTS}
    with as_file(SHIPPED.joinpath("pilothouse.rules.yml")) as rules:
        cases = {
            "rule_files": [str(rules)],
            "tests": [
                held(name, series, case.minute, fires=is_met)
                for name, case in CASES.items()
                for is_met, series in ((True, case.fires), (False, case.quiet))
            ],
        }
        written = tmp_path / "cases.json"
        written.write_text(json.dumps(cases), "utf-8")

        checked = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, check=False)
        tested = subprocess.run([promtool, "test", "rules", written], capture_output=True, text=True, check=False)

    assert (checked.returncode, f"{len(ALERTS)} rules found" in checked.stdout) == (0, True), checked.stderr
    assert tested.returncode == 0, tested.stdout + tested.stderr


def held(name: str, series: dict[str, str], minute: int, *, fires: bool) -> dict[str, Any]:
    """One of promtool's tests: whether the alert fires at that minute."""
    asked = f'count(ALERTS{{alertname="{name}", alertstate="firing"}})'
    return {
        "name": f"{name} {'fires' if fires else 'is quiet'}",
        "interval": "1m",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [
            {"expr": asked, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": 1}] if fires else []}
        ],
    }
