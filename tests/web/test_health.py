"""Health, readiness, metrics and the status page."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pilothouse.config import Settings, load_settings
from pilothouse.control import leases, limits, switches, workers
from pilothouse.control.breakers import Breakers
from pilothouse.control.calls import ModelCall, StepCalls, ToolCall
from pilothouse.control.history import sample
from pilothouse.control.runs import Submitter
from pilothouse.domain.limits import Limit, Period, Unit
from pilothouse.domain.prices import Usage
from pilothouse.payloads import encode
from pilothouse.store.database import Database, open_database
from pilothouse.telemetry.catalogue import CATALOGUE
from pilothouse.telemetry.metrics import render_metrics
from pilothouse.web.server import create_server
from tests.control.steps import checkpoint, write
from tests.web.documented import documented_client
from tests.web.platform import FakeWorker, agent_card

RUNS = "/api/v1/runs"


def client_of(db: Database, settings: Settings) -> httpx2.AsyncClient:
    return documented_client(create_server(db, Submitter(db), settings, asyncio.Event()))


async def samples_of(api: httpx2.AsyncClient) -> dict[tuple[str, ...], float]:
    """The figures of /metrics by name and label values."""
    text = (await api.get("/metrics")).text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_health_never_asks_the_database(settings: Settings) -> None:
    async with client_of(open_database(settings.database_url), settings) as api:
        response = await api.get("/health")

    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_health_answers_head_too(api: httpx2.AsyncClient) -> None:
    assert [(await api.head(path)).status_code for path in ("/health", "/ready", "/")] == [200, 200, 200]


async def lead(db: Database) -> None:
    """What a scheduler does at its turn."""
    assert await leases.hold(db, "janitor", "test", lease_us=60_000_000)


async def checks_of(api: httpx2.AsyncClient) -> dict[str, Any]:
    response = await api.get("/ready")
    assert response.status_code == 200, response.text
    return cast(dict[str, Any], response.json()["checks"])


async def test_it_is_ready_with_a_live_worker_a_scheduler_and_an_agent(
    api: httpx2.AsyncClient, worker: FakeWorker, db: Database
) -> None:
    await lead(db)
    response = await api.get("/ready")

    told = response.json()
    asked = ("database", "schema", "writes", "disk")
    judged = ("workers", "scheduler", "agents", "breakers", "switches", "budgets")
    assert (response.status_code, told["status"]) == (200, "ready")
    assert {name: check["status"] for name, check in told["checks"].items()} == dict.fromkeys(asked + judged, "ready")


async def test_a_dead_tool_degrades_its_agents_only(api: httpx2.AsyncClient, worker: FakeWorker, db: Database) -> None:
    await lead(db)
    await FakeWorker(db).start(agent_card("quiet"))
    await api.post(RUNS, json={"agent": "hello", "input": {"name": "Ada"}})
    run = await worker.claim_one()
    failed = ToolCall("send", "write", None, "code", "{}", "failed", 0, 0, 1)
    write(db, checkpoint(run, "mail")._replace(calls=StepCalls((), (failed,))))
    breaker = Breakers(db)
    for _ in range(5):
        await breaker.failed("tool:send", "down")

    response = await api.get("/ready")

    assert response.json()["status"] == "ready"
    assert response.json()["checks"]["breakers"]["detail"] == "tool:send is left alone (down; used by hello)"


async def test_a_route_whose_models_answer_nothing_degrades(
    worker: FakeWorker, db: Database, settings: Settings
) -> None:
    await lead(db)
    breaker = Breakers(db)
    routed = load_settings(database_url=settings.database_url, routes={"main": {"models": ["offline:a", "offline:b"]}})
    told = []
    async with client_of(db, routed) as api:
        for model in ("offline:a", "offline:b"):
            for _ in range(5):
                await breaker.failed(f"model:{model}", "no answer")
            told.append((await checks_of(api))["models"])

    assert [check["status"] for check in told] == ["ready", "degraded"]
    assert told[0]["detail"] == "1 route reachable; passed over: offline:a is left alone"
    assert "route main: offline:a is left alone, offline:b is left alone" in told[1]["detail"]


async def test_a_scheduler_that_has_died_degrades(api: httpx2.AsyncClient, worker: FakeWorker, db: Database) -> None:
    assert await leases.hold(db, "janitor", "test", lease_us=-1)

    checks = await checks_of(api)

    assert checks["scheduler"]["status"] == "degraded"
    assert "janitor" in checks["scheduler"]["detail"]


async def test_the_global_switch_degrades(api: httpx2.AsyncClient, worker: FakeWorker, db: Database) -> None:
    await switches.trip_switch(db, switches.TripOrder("global", reason="test"), principal="test")

    assert (await checks_of(api))["switches"]["status"] == "degraded"


async def test_it_is_not_ready_while_nothing_can_be_written(
    api: httpx2.AsyncClient, worker: FakeWorker, db: Database
) -> None:
    db.administer(
        lambda tx: tx.execute(
            "CREATE TRIGGER full BEFORE INSERT ON leases BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    )

    response = await api.get("/ready")

    assert (response.status_code, response.json()["status"]) == (503, "not_ready")
    assert "full" in response.json()["checks"]["writes"]["detail"]


async def test_it_is_degraded_without_workers_and_agents(api: httpx2.AsyncClient) -> None:
    response = await api.get("/ready")

    told = response.json()
    assert (response.status_code, told["status"]) == (200, "degraded")
    assert [told["checks"][name]["status"] for name in ("workers", "agents")] == ["degraded", "degraded"]
    assert "pilothouse worker" in told["checks"]["workers"]["detail"]


async def test_a_worker_that_drains_counts_no_more(api: httpx2.AsyncClient, worker: FakeWorker, db: Database) -> None:
    await db.transaction(lambda tx: workers.start_draining(tx, worker.id, principal="test"))

    assert (await api.get("/ready")).json()["checks"]["workers"]["status"] == "degraded"


async def test_it_is_not_ready_without_its_schema(settings: Settings, tmp_path: Path) -> None:
    db = open_database(f"sqlite:///{tmp_path}/empty.db")
    db.start()
    async with client_of(db, settings) as api:
        response = await api.get("/ready")
    db.close()

    assert (response.status_code, response.json()["status"]) == (503, "not_ready")
    assert "pilothouse db migrate" in response.json()["checks"]["schema"]["detail"]


async def test_it_is_not_ready_without_its_database(api: httpx2.AsyncClient, db: Database) -> None:
    db.close()

    response = await api.get("/ready")

    assert (response.status_code, response.json()["checks"].keys()) == (503, {"database"})


async def test_metrics_count_runs_attempts_queues_and_workers(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    for name in ("Ada", "Bob", "Cid", "Dan"):
        await api.post(RUNS, json={"agent": "hello", "input": {"name": name}})
    done, broken, _, _ = await worker.claim()
    await worker.settle(done)
    await worker.fail(broken)
    await api.post(RUNS, json={"agent": "hello", "input": {"name": "Eve"}})

    samples = await samples_of(api)

    assert samples["agent_tasks_total", "hello", "succeeded"] == 1
    assert samples["agent_tasks_total", "hello", "failed"] == 1
    assert samples["agent_tasks_total", "hello", "cancelled"] == 0
    assert samples["agent_queue_size", "hello"] == 1
    assert samples["agent_task_duration_seconds_count", "hello"] == 2
    assert samples["agent_task_duration_seconds_bucket", "hello", "+Inf"] == 2
    assert samples["agent_task_duration_seconds_sum", "hello"] > 0
    assert samples["pilothouse_queue_depth", "hello", "normal", "queued"] == 1
    assert samples["pilothouse_queue_depth", "hello", "normal", "running"] == 2
    assert samples["pilothouse_queue_oldest_age_seconds", "hello", "normal"] > 0
    assert samples["pilothouse_attempts_total", "hello", "normal", "succeeded"] == 1
    assert samples["pilothouse_attempts_total", "hello", "normal", "failed"] == 1
    assert samples["pilothouse_workers", "running"] == 1
    assert samples["pilothouse_workers", "draining"] == 0


async def test_metrics_tell_what_agents_ask_and_what_it_costs(
    api: httpx2.AsyncClient, worker: FakeWorker, db: Database
) -> None:
    for name in ("Ada", "Bob"):
        await api.post(RUNS, json={"agent": "hello", "input": {"name": name}})
    done, broken = await worker.claim()
    usage = Usage(input=9, output=3)
    answered = ModelCall("main", "x:y", "answered", None, None, usage, None, 250_000, "list", 0, 500_000)
    tool = ToolCall("send", "write", None, "code", "{}", "failed", 0, 0, 2_000_000)
    write(db, checkpoint(done, "ask")._replace(calls=StepCalls((answered,), (tool,))))
    breaker = Breakers(db)
    for _ in range(5):
        await breaker.failed("tool:send", "down")
    await worker.settle(done)
    await worker.settle(broken, "fatal", error=encode({"type": "RunTimeout", "message": "late"}))
    await limits.set_limit(db, Limit("global", Period.DAY, Unit.MICROUSD, 5_000_000), principal="test")

    samples = await samples_of(api)

    assert samples["routing_decisions_total", "primary", "main"] == 1
    assert samples["llm_cost_usd", "hello", "x:y"] == 0.25
    assert samples["pilothouse_cost_usd_total", "hello", "model", "x:y"] == 0.25
    assert samples["pilothouse_tokens_total", "hello", "input"] == 9
    assert samples["pilothouse_tool_calls_total", "hello", "failed", "send"] == 1
    assert samples["pilothouse_tool_seconds_total", "hello", "send"] == 2
    assert samples["pilothouse_failures_total", "hello", "timed_out"] == 1
    assert samples["circuit_breaker_state", "", "tool:send"] == 1
    assert samples["circuit_breaker_state", "hello", "tool:send"] == 1
    assert samples["pilothouse_budget_limit", "global", "day", "usd"] == 5
    assert samples["pilothouse_dead_letters",] == 1
    assert samples["pilothouse_worker_slots",] == 8
    assert samples["pilothouse_worker_utilization_ratio",] == 0
    assert samples["pilothouse_agent_info", "hello", "greetings", "1", "f"] == 1
    assert samples["db_pool_size",] >= 2
    assert samples["process_resident_memory_bytes",] > 1_000_000
    assert ("workflow_duration_seconds_count", "hello") not in samples


async def test_shares_look_back_on_the_history(api: httpx2.AsyncClient, worker: FakeWorker, db: Database) -> None:
    await sample(db)
    for name in ("Ada", "Bob", "Cid", "Dan"):
        await api.post(RUNS, json={"agent": "hello", "input": {"name": name}})
    first, second, third, _ = await worker.claim()
    await worker.settle(first)
    await worker.settle(second)
    await worker.fail(third)
    await sample(db)

    samples = await samples_of(api)

    assert samples["error_rate", "hello"] == 1 / 3
    assert samples["pilothouse_runs_ended_per_minute", "hello"] == 3 / 5
    assert samples["pilothouse_completion_ratio", "hello"] == 2 / 3
    assert samples["pilothouse_escalation_ratio", "hello"] == 0
    assert samples["pilothouse_cost_usd_per_run", "hello"] == 0


async def test_durations_of_an_older_version_keep_the_bound_that_they_were_known_to_keep(
    api: httpx2.AsyncClient, worker: FakeWorker, db: Database
) -> None:
    """An older version knew no bound of 120 s and one of 45 s."""
    rows = [("300.0", 4), ("45.0", 2), ("+Inf", 1)]
    for label, value in rows:
        insert = f"INSERT INTO counters VALUES ('run_seconds', 'hello', 'normal', '{label}', 0, {value})"
        db.administer(lambda tx, sql=insert: tx.execute(sql))  # type: ignore[misc]

    samples = await samples_of(api)

    bucket = "agent_task_duration_seconds_bucket"
    found = {bound: samples[bucket, "hello", bound] for bound in ("30.0", "60.0", "120.0", "300.0", "3600.0", "+Inf")}
    assert found == {"30.0": 0, "60.0": 2, "120.0": 2, "300.0": 6, "3600.0": 6, "+Inf": 7}


async def test_a_workflow_has_durations_under_its_own_name(api: httpx2.AsyncClient, db: Database) -> None:
    worker = FakeWorker(db)
    await worker.start(agent_card("hello", definition="workflow"))
    await api.post(RUNS, json={"agent": "hello", "input": {"name": "Ada"}})
    await worker.settle(await worker.claim_one())

    assert (await samples_of(api))["workflow_duration_seconds_count", "hello"] == 1


def test_every_metric_has_a_name_of_its_own_and_counters_end_in_total() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert len(names) == len(set(names))
    assert {m.name.endswith("_total") for m in CATALOGUE if m.kind == "counter"} == {True}
    assert not any(m.name.endswith("_total") for m in CATALOGUE if m.kind != "counter")
    with pytest.raises(LookupError, match=r"not in telemetry\.catalogue: made_up"):
        render_metrics({"made_up": []}, (1.0,))


async def test_a_redrive_turns_no_counter_back(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run_id = (await api.post(RUNS, json={"agent": "hello", "input": {"name": "Ada"}})).json()["id"]
    await worker.fail(await worker.claim_one())
    await api.post(f"{RUNS}/{run_id}/redrive")
    redriven = await samples_of(api)
    await worker.fail(await worker.claim_one())
    again = await samples_of(api)

    assert redriven["agent_tasks_total", "hello", "failed"] == 1
    assert again["agent_tasks_total", "hello", "failed"] == 2


async def test_metrics_can_be_switched_off(db: Database) -> None:
    async with client_of(db, load_settings(enable_metrics=False)) as api:
        response = await api.get("/metrics")

    assert response.status_code == 404


async def test_the_status_page_needs_nothing_from_elsewhere(api: httpx2.AsyncClient) -> None:
    response = await api.get("/")

    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", response.text)


async def test_the_status_pages_links_all_lead_somewhere(api: httpx2.AsyncClient) -> None:
    page = (await api.get("/")).text

    answers: dict[str, Any] = {path: (await api.get(path)).status_code for path in re.findall(r'href="(/[^"]+)"', page)}

    assert set(answers) >= {"/api/v1/openapi.json", "/runs", "/settings"}
    assert set(answers.values()) == {200}
    assert (await api.get("/api/v1/overview")).status_code == 200
