"""A worker that is stopped lets go of what it holds, and of what it did not know yet that it holds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pilothouse import App
from pilothouse.control import workers
from pilothouse.store.database import T, Work
from tests.engine.conftest import Start


async def test_what_a_claim_brings_while_its_worker_stops_is_queued_again_at_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    app = App("t")

    @app.agent
    async def greet() -> None:
        calls.append("called")

    platform = await start(app, is_frozen=False)
    tell = platform.db.transaction

    async def stop_before_the_answer(work: Work[T], *, is_patient: bool = False) -> T:
        answer: Any = await tell(work, is_patient=is_patient)
        if getattr(answer, "claimed", None):
            platform._stop.set()
            await asyncio.sleep(0.05)
        return answer  # type: ignore[no-any-return]

    monkeypatch.setattr(platform.db, "transaction", stop_before_the_answer)
    run_id = await platform.submit("greet")
    await platform._working

    story = await platform.timeline(run_id)
    assert (story["run"]["state"], [attempt["state"] for attempt in story["attempts"]]) == ("queued", ["suspended"])
    assert calls == [], "nothing new is begun while a worker stops"
    assert [worker["state"] for worker in await workers.list_workers(platform.db)] == ["stopped"]
