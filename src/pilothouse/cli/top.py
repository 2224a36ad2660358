"""`top`: what is going on now, drawn again every second."""

from __future__ import annotations

import asyncio
import sys
import termios
import tty
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from pilothouse.cli import output
from pilothouse.cli.call_view import usd
from pilothouse.cli.output import AsJson
from pilothouse.cli.safe import safe
from pilothouse.cli.session import run
from pilothouse.config import Settings, load_settings
from pilothouse.control.top import top as look
from pilothouse.domain.words import counted
from pilothouse.errors import StoreError
from pilothouse.store.database import Database

REFRESH_SECONDS = 1.0
STATES = {"ready": ("well", "bold green"), "degraded": ("degraded", "bold yellow"), "not_ready": ("down", "bold red")}
BAR = 20
LINES_BESIDE = 18
LEAST_RUNS = 3


def top(
    *,
    once: Annotated[bool, Parameter(negative="", help="Print one frame, as it is without a terminal.")] = False,
    as_json: AsJson = False,
) -> None:
    """What is going on now: the state of the platform, queues, workers, runs under way, spending. `q` ends it."""
    settings = load_settings()
    out = output.console()
    if once or as_json or not out.is_terminal:
        return _print(out, run(lambda db: _two_looks(db, settings)), as_json=as_json)
    return run(lambda db: _follow(db, settings, out))


async def _two_looks(db: Database, settings: Settings) -> dict[str, Any]:
    """One frame, with the throughput of the second before it."""
    first = await look(db, settings)
    await asyncio.sleep(REFRESH_SECONDS)
    return _with_throughput(await look(db, settings), first)


def _print(out: Console, found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.print_json(found)
    else:
        out.print(frame(found, out.width, runs=None))


async def _follow(db: Database, settings: Settings, out: Console) -> None:
    before: dict[str, Any] = {}
    with _quit_key() as wants_to_quit, Live(console=out, screen=True, auto_refresh=False) as live:
        while not wants_to_quit.is_set():
            found = _with_throughput(await _looked(db, settings), before)
            before = found
            room = max(LEAST_RUNS, out.height - LINES_BESIDE - len(found.get("workers", ())))
            live.update(frame(found, out.width, runs=room), refresh=True)
            try:
                async with asyncio.timeout(REFRESH_SECONDS):
                    await wants_to_quit.wait()
            except TimeoutError:
                continue


async def _looked(db: Database, settings: Settings) -> dict[str, Any]:
    """What is going on; a database that goes away while one looks is what one wants to see."""
    try:
        return await look(db, settings)
    except StoreError as error:
        return {"state": "not_ready", "reasons": [str(error)]}


@contextmanager
def _quit_key() -> Iterator[asyncio.Event]:
    """Set once `q` has been pressed. The terminal is put back as it was."""
    pressed = asyncio.Event()
    if not sys.stdin.isatty():
        yield pressed
        return
    loop, fd = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    loop.add_reader(fd, lambda: pressed.set() if sys.stdin.read(1) in ("q", "Q", "") else None)
    try:
        yield pressed
    finally:
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _with_throughput(found: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """With the runs that have ended each second since the look before; None where there is no such look."""
    now, then = output.instant(found.get("now")), output.instant(before.get("now"))
    if now is None or then is None or now <= then:
        return found | {"runs_per_second": None}
    ended: int = found["ended"] - before["ended"]
    return found | {"runs_per_second": round(ended / (now - then).total_seconds(), 2)}


# --- how it looks ----------------------------------------------------------------------------------------


def frame(found: Mapping[str, Any], width: int, *, runs: int | None) -> RenderableType:
    """Everything in one picture, as wide as `width`; at most `runs` of the runs under way, None: all."""
    if "lanes" not in found:
        return Group(_headline(found))
    return Group(
        _headline(found),
        _people(found),
        Text(),
        _lanes(found, width),
        Text(),
        *_spending(found, width),
        Text(),
        _workers(found, width),
        Text(),
        _under_way(found, width, runs),
    )


def _headline(found: Mapping[str, Any]) -> Text:
    name, style = STATES[found["state"]]
    text = Text.assemble("Pilothouse is ", (name, style))
    counts = found.get("runs")
    if counts is not None:
        rate = found["runs_per_second"]
        told = [f"{counts.get(state, 0):,} {state}" for state in ("queued", "running", "waiting")]
        told += [] if rate is None else [f"{rate:,.1f} runs/s"]
        text.append("  " + ", ".join(told))
    for reason in found["reasons"]:
        text.append(safe(f"\n  {reason}"), style="yellow")
    return text


def _people(found: Mapping[str, Any]) -> Text:
    """What waits for somebody, with the command that shows it."""
    approvals, blocked = counted(found["approvals"], "approval"), counted(found["blocked_runs"], "run")
    dead = f"{found['dead']:,}+ dead letters" if found["has_more_dead"] else counted(found["dead"], "dead letter")
    firing = [f"{count:,} {severity}" for severity, count in found["alerts"].items() if count]
    parts = (
        (firing, f"alerts fire: {', '.join(firing)}", "`alerts list`", "bold red"),
        (found["approvals"], f"{approvals} to decide", "`approvals list`", "magenta"),
        (found["dead"], dead, "`dead list`", "red"),
        (found["blocked_runs"], f"{blocked} held by a limit", "`budget list`", "yellow"),
        (found["switches"], f"switches tripped: {', '.join(found['switches'])}", "`switch list`", "bold red"),
    )
    lines = [
        Text.assemble((safe(told), style), (f"  {command}", "dim")) for is_any, told, command, style in parts if is_any
    ]
    return Text("\n").join(lines) if lines else Text("nothing waits for people", style="dim")


def _lanes(found: Mapping[str, Any], width: int) -> RenderableType:
    made = output.table(
        "lane", ("queued", "right"), ("running", "right"), ("waiting", "right"), ("oldest due", "right"), ""
    )
    most = max((lane["queued"] for lane in found["lanes"]), default=0)
    cells = max(4, min(BAR, width - 60))
    for lane in found["lanes"]:
        age = output.seconds(lane["oldest_age_seconds"]) if lane["oldest_age_seconds"] else ""
        counts = [f"{lane[state]:,}" for state in ("queued", "running", "waiting")]
        bar = "█" * (-(-lane["queued"] * cells // most) if most else 0)
        made.add_row(lane["lane"], *counts, age, Text(bar, style="yellow"))
    return output.fitted(made, width, spare=("", "waiting"))


def _spending(found: Mapping[str, Any], width: int) -> Iterator[Text]:
    for each in found["spending"]:
        used, limit = each["settled_microusd"] + each["reserved_microusd"], each["limit_microusd"]
        text = Text(f"{each['period']:<10}  {usd(used)} spent or reserved")
        if limit is None:
            yield text.append("  no limit", style="dim")
            continue
        share = min(1.0, used / limit) if limit else 1.0
        cells = max(4, min(BAR, width - 60))
        full = round(share * cells)
        style = "bold red" if share >= 1 else "yellow" if share >= 0.9 else "green"
        yield (
            text.append(f" of {usd(limit)}  ")
            .append("█" * full, style=style)
            .append("░" * (cells - full))
            .append(f" {share:.0%}")
        )


def _workers(found: Mapping[str, Any], width: int) -> RenderableType:
    if not found["workers"]:
        return Text("no worker: runs are taken but will wait; start one with `pilothouse worker`", style="yellow")
    made = output.table(
        "worker", "state", ("holds", "right"), ("slots", "right"), "", ("host", "fold"), ("agents", "fold")
    )
    for row in found["workers"]:
        slots = sum(row["slots"].values())
        full = round(min(1.0, row["running"] / slots) * BAR // 2) if slots else 0
        state = output.state(row["state"]) if row["is_live"] else Text("silent", style="bold red")
        bar = Text("█" * full + "░" * (BAR // 2 - full), style="cyan")
        agents = output.shorten(", ".join(row["agents"]), 60)
        made.add_row(row["id"][-12:], state, f"{row['running']:,}", f"{slots:,}", bar, row["host"], agents)
    return output.fitted(made, width, spare=("host", "agents"))


def _under_way(found: Mapping[str, Any], width: int, most: int | None) -> RenderableType:
    if not found["under_way"]:
        return Text("no run is under way", style="dim")
    made = output.table(
        "run under way", ("agent", "fold"), "lane", ("#", "right"), ("for", "right"), ("progress", "right")
    )
    for row in found["under_way"][:most]:
        age = output.duration(row["started_at"], found["now"])
        done = row["progress_done"]
        progress = "" if done is None else f"{done} of {row['progress_total'] or '?'}"
        made.add_row(row["id"], row["agent"], row["lane"], str(row["attempt"]), age, progress)
    return output.fitted(made, width, spare=("progress", "lane"))
