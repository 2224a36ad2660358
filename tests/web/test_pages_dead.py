"""The page of dead letters: filtered, chosen by hand or all that fit, and never all by choosing none."""

from __future__ import annotations

import re

import httpx2
import pytest

from tests.web.browsing import send
from tests.web.platform import FakeWorker
from tests.web.test_pages_runs import links_of, state_of, submit


async def fail(api: httpx2.AsyncClient, worker: FakeWorker, error_type: str = "Boom", tenant: str = "default") -> str:
    run_id = await submit(api, tenant=tenant)
    await worker.fail(await worker.claim_one(), error_type)
    return run_id


async def test_dead_letters_are_filtered_and_paged(
    api: httpx2.AsyncClient, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilothouse.web.pages.dead.SHOWN", 2)
    assert "nothing has failed" in (await api.get("/dead")).text
    ids = [await fail(api, worker), await fail(api, worker, "<b>Odd"), await fail(api, worker, tenant="acme")]

    first = (await api.get("/dead")).text
    assert links_of(first) == ids[:0:-1]
    assert "<b>Odd" not in first
    older = re.search(r'rel="next" href="([^"]+)"', first)
    assert older is not None
    assert links_of((await api.get(older[1].replace("&amp;", "&"))).text) == ids[:1]
    assert links_of((await api.get("/dead", params={"error_type": "<b>Odd"})).text) == [ids[1]]
    narrow = (await api.get("/dead", params={"tenant": "acme", "agent": "hello"})).text
    assert links_of(narrow) == [ids[2]]
    assert "pilothouse dead redrive --agent hello --tenant acme" in narrow
    assert "No dead letter fits" in (await api.get("/dead?agent=nobody")).text


async def test_the_chosen_ones_are_redriven_and_choosing_none_means_none(
    api: httpx2.AsyncClient, worker: FakeWorker
) -> None:
    first, second, third = [await fail(api, worker) for _ in range(3)]
    none = (await api.get("/runs/bulk?back=dead&chosen=yes&verb=redrive")).text
    assert links_of(none) == []
    chosen = f"/runs/bulk?back=dead&chosen=yes&run={first}&run={third}&verb=redrive"
    assert sorted(links_of((await api.get(chosen)).text)) == [first, third]

    fields = {"verb": "redrive", "ids": f"{first},{third}", "back": "dead"}
    assert "2 of 2 runs were redriven" in (await send(api, chosen, "/runs/bulk", fields)).text

    assert [await state_of(api, id) for id in (first, second, third)] == ["queued", "failed", "queued"]
    assert links_of((await api.get("/dead")).text) == [second]
