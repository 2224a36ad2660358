"""Health, readiness, metrics and the status page."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from pilothouse.config import Settings, load_settings
from pilothouse.control import workers
from pilothouse.control.runs import Submitter
from pilothouse.store.database import Database, open_database
from pilothouse.web.server import create_server
from tests.web.documented import documented_client
from tests.web.platform import FakeWorker

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


async def test_it_is_ready_with_a_live_worker_and_an_agent(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    response = await api.get("/ready")

    told = response.json()
    assert (response.status_code, told["status"]) == (200, "ready")
    assert {name: check["status"] for name, check in told["checks"].items()} == dict.fromkeys(
        ("database", "schema", "workers", "agents"), "ready"
    )


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

    assert set(answers) >= {"/api/v1/openapi.json", "/metrics"}
    assert set(answers.values()) == {200}
    assert (await api.get("/api/v1/overview")).status_code == 200
