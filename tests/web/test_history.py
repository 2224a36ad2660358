"""GET /api/v1/history: charts over HTTP."""

from __future__ import annotations

import httpx2

from pilothouse.control.history import sample
from pilothouse.store.database import Database
from tests.web.platform import FakeWorker

URL = "/api/v1/history"


async def test_a_chart_has_the_same_instants_for_every_series(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    await sample(db)
    for _ in range(3):
        await api.post("/api/v1/runs", json={"agent": "hello", "input": {"name": "Ada"}})
    (first, *_) = await worker.claim()
    await worker.settle(first)
    await sample(db)
    db.administer(lambda tx: tx.execute("UPDATE history SET at = at - 10000000"))

    found = await api.get(URL, params={"name": ["runs_ended", "queued"], "seconds": 60, "step_seconds": 1})

    body = found.json()
    assert (found.status_code, body["step_seconds"], len(body["instants"])) == (200, 1, 61)
    ended, queued = sorted(body["items"], key=lambda item: item["kind"])
    assert {key: ended[key] for key in ("name", "agent", "label", "kind", "increase")} == {
        "name": "runs_ended",
        "agent": "hello",
        "label": "succeeded",
        "kind": "cumulative",
        "increase": 1,
    }
    assert len(ended["values"]) == len(ended["rates"]) == len(queued["values"]) == 61
    assert (queued["rates"], queued["increase"]) == (None, None)


async def test_what_cannot_be_charted_is_refused_with_what_can(api: httpx2.AsyncClient) -> None:
    unknown = await api.get(URL, params={"name": "nonsense"})
    too_fine = await api.get(URL, params={"name": "queued", "seconds": 86_400, "step_seconds": 1})
    nothing = await api.get(URL)

    assert unknown.status_code == 422
    assert "names: attempts, cost_microusd" in unknown.json()["detail"]
    assert too_fine.status_code == 422
    assert "take longer steps" in too_fine.json()["detail"]
    assert nothing.status_code == 422


async def test_another_agents_chart_is_empty(api: httpx2.AsyncClient, db: Database, worker: FakeWorker) -> None:
    await sample(db)

    assert (await api.get(URL, params={"name": "queued", "agent": "nobody"})).json()["items"] == []
