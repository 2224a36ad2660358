"""What a worker runs into by itself costs no attempt: it says so, with the traceback, and goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pilothouse import App
from pilothouse.cli import roles
from pilothouse.config import load_settings
from pilothouse.engine.worker import Worker
from pilothouse.errors import StoreError
from pilothouse.platform import Platform
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import Emitter, WorkerFault
from tests.engine.conftest import Start


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), StoreError("the statement failed")])
async def test_a_look_that_fails_is_done_again(start: Start, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    app, seen, failures = App("t"), list[Event](), [error, error, error]
    look = Worker._next_due

    async def fail_at_first(self: Worker) -> Any:
        if failures:
            raise failures.pop()
        return await look(self)

    @app.agent
    async def hold(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "kept"

    monkeypatch.setattr("pilothouse.engine.worker.Worker._next_due", fail_at_first)
    monkeypatch.setattr("pilothouse.testing.Emitter", lambda: Emitter([seen.append]))
    platform = await start(app)

    assert await platform.run("hold", {"seconds": 0.1}) == "kept"

    assert not failures
    faults = [event for event in seen if isinstance(event, WorkerFault)]
    assert [(fault.reason, fault.exc_info) for fault in faults] == [(f"{type(error).__name__}: {error}", error)] * 3


def test_a_process_that_a_bug_ends_logs_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = load_settings(database_url=f"sqlite:///{tmp_path / 'store.db'}", port=0)

    async def break_down(self: Platform, stop: asyncio.Event) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Platform, "serve", break_down)
    monkeypatch.setattr(roles, "configure_logs", lambda *_: None)

    with pytest.raises(ZeroDivisionError):
        roles._serve(settings, None, frozenset({"api"}), schema="migrate", announce=lambda platform: None)

    said = capfd.readouterr().err
    assert "process.crashed" in said
    assert "in break_down" in said
