"""Follows one run until it has ended: a line per record and log line, and on a terminal what it does right now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import merge
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from pilothouse import payloads
from pilothouse.cli import output
from pilothouse.cli.run_view import follow_line, log_line
from pilothouse.clock import SystemClock, from_datetime
from pilothouse.control.views import run_view, view
from pilothouse.control.watching import News, Place, news_of_run
from pilothouse.domain.runs import TERMINAL, RunState
from pilothouse.store.database import Database

LOOK_SECONDS = 0.2
REFRESHES_PER_SECOND = 8


async def follow(db: Database, run_id: str, *, as_json: bool) -> int:
    """Prints what happened to the run from its beginning to its end, then its result; 0 if it succeeded, else 1."""
    hinted = asyncio.Event()
    loop = asyncio.get_running_loop()
    unlisten = db.listen(lambda _topic: _set(loop, hinted))
    try:
        with _view(as_json=as_json) as shown:
            ended = await _until_ended(db, run_id, shown, hinted)
    finally:
        unlisten()
    return _print_end(ended, as_json=as_json)


class _View:
    """Where news go: `out` takes the lines, `doing` is what the terminal shows below them."""

    def __init__(self, out: Console | None) -> None:
        self._out = out
        self._run: dict[str, Any] | None = None
        self._spinner = Spinner("dots")

    def tell(self, row: dict[str, Any]) -> None:
        if self._out is None:
            output.print_json(row)
        else:
            self._out.print(follow_line(row) if "seq" in row else log_line(row), soft_wrap=True)

    def show(self, run: dict[str, Any]) -> None:
        self._run = run

    def doing(self) -> RenderableType:
        if self._run is None:
            return Text("")
        self._spinner.update(text=_doing(self._run))
        return self._spinner


@contextmanager
def _view(*, as_json: bool) -> Iterator[_View]:
    out = output.console()
    shown = _View(None if as_json else out)
    if as_json or not out.is_terminal:
        yield shown
        return
    with Live(console=out, get_renderable=shown.doing, refresh_per_second=REFRESHES_PER_SECOND, transient=True):
        yield shown


def _doing(run: dict[str, Any]) -> Text:
    """The run's state now, how far it is and for how long it has been there."""
    since = output.instant(run["created_at"])
    assert since is not None
    age = (SystemClock().now_us() - from_datetime(since)) // 1_000_000
    shown = f"{age} s" if age < 120 else output.seconds(age)
    text = Text.assemble(output.state(run["state"]), (f"  {shown}", "dim"))
    if run["attempt"]:
        text.append(f"  attempt {run['attempt']}", style="dim")
    if run["progress_done"] is not None:
        text.append(f"  {run['progress_done']} of {run['progress_total'] or '?'}")
    return text


async def _until_ended(db: Database, run_id: str, shown: _View, hinted: asyncio.Event) -> dict[str, Any]:
    place = Place()
    while True:
        news = await news_of_run(db, run_id, place)
        place = _tell(news, place, shown)
        run = run_view(news.run)
        shown.show(run)
        if news.has_more:
            continue
        if run["state"] in TERMINAL:
            return run
        await _wait(hinted)


def _tell(news: News, place: Place, shown: _View) -> Place:
    """Both records in the order of their instants; the place after them."""
    for row in merge(news.records, news.logs, key=lambda row: int(row["at"])):
        shown.tell(view(row))
    seq = news.records[-1]["seq"] if news.records else place.seq
    log_id = news.logs[-1]["id"] if news.logs else place.log_id
    return Place(seq, log_id)


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(event.set)


async def _wait(hinted: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await hinted.wait()
    except TimeoutError:
        return
    hinted.clear()


def _print_end(found: dict[str, Any], *, as_json: bool) -> int:
    is_good = found["state"] == RunState.SUCCEEDED
    if as_json:
        output.print_json(found)
    elif is_good:
        output.console().print_json(payloads.encode(found["output"]))
    else:
        error = found["error"] or {}
        told = f"{error.get('type', found['state'])}: {error.get('message', '')}"
        output.errors().print(f"{told}\nsee `pilothouse runs show {found['id']}`", style="red", soft_wrap=True)
    return 0 if is_good else 1
