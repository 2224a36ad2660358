"""The life of a worker that is killed after so many calls: in a process of its own, forked from one that is warm."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from typing import Any

from pilothouse.config import load_settings
from pilothouse.control.attempts import Checkpoint
from pilothouse.control.runs import get_run
from pilothouse.domain.lanes import Slots
from pilothouse.domain.runs import TERMINAL
from pilothouse.engine.attempt import Surroundings
from pilothouse.engine.lease import LeaseTerms
from pilothouse.engine.pump import Pump
from pilothouse.engine.worker import Worker, WorkerOptions
from pilothouse.platform import make_gateway
from pilothouse.store.database import Database, open_database
from pilothouse.telemetry.events import Emitter
from tests.conformance.desks import app

CALLS = ("model", "tool")


def live(url: str, run_id: str, calls: int, environment: Mapping[str, str]) -> None:
    """Works on the run until it has ended, or until so many calls of models and tools are durable."""
    os.environ.update(environment)
    _die_after(calls)
    asyncio.run(_work(url, run_id))


def _die_after(calls: int) -> None:
    write = Pump.checkpoint
    left = calls

    async def watched(pump: Pump, checkpoint: Checkpoint) -> None:
        nonlocal left
        await write(pump, checkpoint)
        left -= checkpoint.kind in CALLS
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(Pump, "checkpoint", watched)  # noqa: B010 - mypy knows it as a method


async def _work(url: str, run_id: str) -> None:
    db = open_database(url)
    db.start()
    settings = load_settings(routes={"default": {"models": ["openai:gpt-5-mini"]}})
    emitter, stop = Emitter(), asyncio.Event()
    gateway = make_gateway(db, settings, emitter)
    worker = Worker(db, app.agents, _options(), emitter, Surroundings(gateway))
    working = asyncio.ensure_future(worker.run(stop))
    await _until_ended(db, run_id, working)
    stop.set()
    await working
    assert gateway is not None
    await gateway.close()
    db.close()


async def _until_ended(db: Database, run_id: str, working: asyncio.Future[Any]) -> None:
    while (await get_run(db, run_id))["state"] not in TERMINAL:
        if working.done():
            working.result()
        await asyncio.sleep(0.02)


def _options() -> WorkerOptions:
    return WorkerOptions(
        app=app.name,
        slots=Slots(),
        terms=LeaseTerms(lease_us=60_000_000, renew_seconds=3.0),
        poll_seconds=0.02,
        drain_seconds=5.0,
        attempt_timeout_seconds=60.0,
    )
