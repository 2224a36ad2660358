"""Follows one run until it has ended: a line per record and log line, and on a terminal its waterfall as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import merge
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from pilothouse import payloads
from pilothouse.cli import output
from pilothouse.cli.run_view import by_line, follow_line, log_line, show_sums
from pilothouse.cli.safe import safe
from pilothouse.cli.waterfall_view import bars
from pilothouse.clock import SystemClock, from_datetime
from pilothouse.control.timeline import why
from pilothouse.control.views import run_view, view
from pilothouse.control.watching import News, Place, news_of_run
from pilothouse.control.waterfall import waterfall_of
from pilothouse.domain.runs import TERMINAL, RunState
from pilothouse.store.database import Database

LOOK_SECONDS = 0.2
WATERFALL_SECONDS = 0.5
LEAST_SPANS, LINES_BESIDE = 6, 12
HELD = (RunState.QUEUED, RunState.WAITING)
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
    if shown.waterfall is not None and not as_json:
        show_sums(output.console(), shown.waterfall)
    return _print_end(ended, as_json=as_json)


class _View:
    """Where news go: `out` takes the lines, `doing` is what the terminal shows below them."""

    def __init__(self, out: Console | None, *, is_live: bool) -> None:
        self.waterfall: dict[str, Any] | None = None
        self._out = out
        self._is_live = is_live
        self._looked_at = float("-inf")
        self._run: dict[str, Any] | None = None
        self._why: dict[str, Any] | None = None
        self._spinner = Spinner("dots")

    def tell(self, row: dict[str, Any]) -> None:
        if self._out is None:
            output.print_json(row)
        else:
            self._out.print(follow_line(row) if "seq" in row else log_line(row), soft_wrap=True)

    async def show(self, db: Database, run: dict[str, Any]) -> None:
        """The run as it is now, and on a terminal its waterfall, which is read again twice a second."""
        self._run = run
        if not self._is_live:
            return
        at = SystemClock().monotonic()
        if at - self._looked_at >= WATERFALL_SECONDS or run["state"] in TERMINAL:
            self._looked_at = at
            self.waterfall = await waterfall_of(db, run["id"])
            self._why = await why(db, run["id"]) if run["state"] in HELD else None

    def doing(self) -> RenderableType:
        if self._run is None:
            return Text("")
        self._spinner.update(text=_doing(self._run))
        if self.waterfall is None:
            return self._spinner
        told = Text() if self._why is None else _told(self._why)
        return Group(self._bars(self.waterfall), self._spinner, told)

    def _bars(self, found: dict[str, Any]) -> RenderableType:
        """As much of it as the terminal holds: what does not fit would scroll away again and again."""
        assert self._out is not None
        return bars(found, self._out.width, most=max(LEAST_SPANS, self._out.height - LINES_BESIDE))


@contextmanager
def _view(*, as_json: bool) -> Iterator[_View]:
    out = output.console()
    is_live = out.is_terminal and not as_json
    shown = _View(None if as_json else out, is_live=is_live)
    if not is_live:
        yield shown
        return
    with Live(console=out, get_renderable=shown.doing, refresh_per_second=REFRESHES_PER_SECOND, transient=True):
        yield shown
    if shown.waterfall is not None:
        out.print(bars(shown.waterfall, out.width))


def _doing(run: dict[str, Any]) -> Text:
    """The run's state now, how far it is and for how long it has been there."""
    since = output.instant(run["created_at"])
    assert since is not None
    age = max(0, SystemClock().now_us() - from_datetime(since)) // 1_000_000
    shown = f"{age} s" if age < 120 else output.seconds(age)
    text = Text.assemble(output.state(run["state"]), (f"  {shown}", "dim"))
    if run["attempt"]:
        text.append(f"  attempt {run['attempt']}", style="dim")
    if run["progress_done"] is not None:
        text.append(f"  {run['progress_done']} of {run['progress_total'] or '?'}")
    return text


def _told(found: dict[str, Any]) -> Text:
    """Why the run does not go on, and what to do."""
    text = Text.assemble(("why   ", "bold"), safe("; ".join(found["reasons"])))
    return text.append("\nnext  ", style="bold").append(by_line(safe(found["next"])))


async def _until_ended(db: Database, run_id: str, shown: _View, hinted: asyncio.Event) -> dict[str, Any]:
    place = Place()
    while True:
        news = await news_of_run(db, run_id, place)
        place = _tell(news, place, shown)
        run = run_view(news.run)
        await shown.show(db, run)
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
