"""How the waterfall of a run looks in a terminal: a bar for each span, where its time went, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from pilothouse.cli import output
from pilothouse.cli.call_view import usd
from pilothouse.cli.safe import safe
from pilothouse.clock import from_datetime

MARKS: Mapping[str, tuple[str, str]] = {
    "succeeded": ("✓", "green"),
    "answered": ("✓", "green"),
    "approved": ("✓", "green"),
    "cached": ("≡", "cyan"),
    "failed": ("✗", "bold red"),
    "rejected": ("✗", "bold red"),
    "lost": ("✗", "red"),
    "retryable": ("↻", "yellow"),
    "suspended": ("‖", "blue"),
    "unknown": ("?", "bold yellow"),
    "skipped": ("-", "yellow"),
    "cancelled": ("-", "magenta"),
    "expired": ("-", "magenta"),
    "withdrawn": ("-", "dim"),
    "returned": ("↻", "yellow"),
    "ended": (" ", ""),
}
UNDER_WAY = ("●", "bold cyan")

BARS: Mapping[str, tuple[str, str]] = {
    "queue": ("░", "yellow"),
    "wait": ("░", "blue"),
    "approval": ("░", "magenta"),
    "attempt": ("▬", "white"),
    "step": ("█", "green"),
    "model": ("█", "magenta"),
    "tool": ("█", "cyan"),
    "effect": ("█", "bright_cyan"),
    "child": ("▒", "white"),
}
PARTS: Mapping[str, tuple[str, str]] = {
    "queue": ("in the queue", "yellow"),
    "backoff": ("backing off after a failure", "yellow"),
    "people": ("waiting for people", "magenta"),
    "signal": ("waiting for signals", "blue"),
    "timer": ("waiting for its time", "blue"),
    "child": ("waiting for children", "blue"),
    "hold": ("held by a switch or a limit", "red"),
    "model": ("asking models", "magenta"),
    "tool": ("calling tools", "cyan"),
    "step": ("in other steps", "green"),
    "code": ("in the handler itself", "white"),
}
SPANS_SHOWN = 60
LEAST_BAR = 12
WIDEST_HEADING = "… 99 more"
WIDEST_NAME = 44
PART_BAR = 24


class _Scale(NamedTuple):
    """The line of time: its first instant, how many microseconds it spans, and how many cells wide it is."""

    first: int
    total: int
    cells: int


def bars(found: Mapping[str, Any], width: int, *, most: int | None = SPANS_SHOWN) -> Table:
    """A line per span: what it is, how long it took, what it cost and when it was. As wide as `width`.

    At most `most` of those that are worth a line; None: all there are.
    """
    is_all = most is None
    kept = [span for span in found["spans"] if is_all or _is_worth_a_line(span, found)]
    spans, left_out = _shown(kept, len(kept) if most is None else most)
    lines = [_line(span, found["now"], width) for span in spans]
    columns: list[output.Column] = ["span", ("took", "right"), ("cost", "right")]
    widths = [max(cell_len(str(cell)) for cell in (WIDEST_HEADING, *column)) for column in zip(*lines, strict=True)]
    used = sum(widths) + output.GAP * (len(columns) + 1)
    scale = _Scale(_instant(found["started_at"]), max(1, found["total_us"]), max(LEAST_BAR, width - used))
    made = output.table(*columns, _axis(found, scale.cells))
    for place, (span, line) in enumerate(zip(spans, lines, strict=True)):
        if left_out and place == len(spans) // 2:
            made.add_row(Text(f"… {left_out:,} more", style="dim"))
        made.add_row(*line, _bar(span, found["now"], scale))
    return made


def _is_worth_a_line(span: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """A moment in the queue is not, while it is over; the sum of them is told below."""
    if span["kind"] != "queue" or span["ended_at"] is None:
        return True
    took: int = _instant(span["ended_at"]) - _instant(span["started_at"])
    return took * 100 >= int(found["total_us"])


def _line(span: Mapping[str, Any], now: str, width: int) -> tuple[Text, str, str]:
    cost = usd(span["cost_microusd"]) if span["cost_microusd"] else ""
    return _name(span, width), _took(span, now), cost


def _shown(spans: Sequence[dict[str, Any]], limit: int) -> tuple[list[dict[str, Any]], int]:
    """The first and the last of them, and how many lie between."""
    if len(spans) <= limit:
        return list(spans), 0
    half = limit // 2
    return [*spans[:half], *spans[-(limit - half) :]], len(spans) - limit


def _name(span: Mapping[str, Any], width: int) -> Text:
    mark, style = MARKS.get(span["state"], UNDER_WAY) if span["ended_at"] else UNDER_WAY
    name, detail = safe(" ".join(span["name"].split())), safe(" ".join(span["detail"].split()))
    room = min(WIDEST_NAME, max(16, width // 2 - 8)) - 2 * span["depth"]
    text = Text.assemble("  " * span["depth"], (mark, style), " ", (name, BARS[span["kind"]][1]))
    if detail and detail != name:
        text.append(f" {detail}", style="red" if span["state"] == "failed" else "dim")
    text.truncate(room + 2 * span["depth"], overflow="ellipsis")
    return text


def _took(span: Mapping[str, Any], now: str) -> str:
    return output.duration(span["started_at"], span["ended_at"] or now)


def _axis(found: Mapping[str, Any], cells: int) -> str:
    end = output.seconds(found["total_us"] / 1_000_000)
    return "0" + end.rjust(cells - 1)


def _bar(span: Mapping[str, Any], now: str, scale: _Scale) -> Text:
    """At least one cell, however short; where it lies on the whole line."""
    start = max(0, _instant(span["started_at"]) - scale.first)
    end = max(start, _instant(span["ended_at"] or now) - scale.first)
    first = min(scale.cells - 1, start * scale.cells // scale.total)
    last = min(scale.cells, max(first + 1, round(end * scale.cells / scale.total)))
    sign, style = BARS[span["kind"]]
    failed = span["state"] in ("failed", "lost", "rejected") and span["kind"] != "wait"
    tail = "▸" if span["ended_at"] is None and last == scale.cells else sign
    return Text.assemble(" " * first, (sign * (last - first - 1) + tail, "red" if failed else style))


def _instant(text: str) -> int:
    moment = output.instant(text)
    assert moment is not None
    return from_datetime(moment)


def where(found: Mapping[str, Any], width: int) -> Table:
    """The parts of the run's time, the longest first, as shares of the whole."""
    total = max(1, found["total_us"])
    made = output.table("where the time went", ("time", "right"), ("share", "right"), "")
    cells = max(4, min(PART_BAR, width - 50))
    for part, us in sorted(found["where_time_went"].items(), key=lambda pair: -pair[1]):
        name, style = PARTS[part]
        bar = Text("█" * max(1, round(us * cells / total)), style=style)
        made.add_row(name, output.seconds(us / 1_000_000), f"{us / total:.1%}", bar)
    return made


def costs(found: Mapping[str, Any]) -> Table:
    """What models and tools have cost, the dearest first."""
    made = output.table(
        ("what it cost", "fold"), ("calls", "right"), ("tokens", "right"), ("took", "right"), ("cost", "right")
    )
    for kind in ("model", "tool"):
        for line in found["cost"][f"by_{kind}"]:
            tokens = f"{line['tokens']:,}" if line["tokens"] else ""
            took = output.seconds(line["us"] / 1_000_000)
            made.add_row(f"{kind} {line['name']}", f"{line['calls']:,}", tokens, took, usd(line["microusd"]))
    return made
