"""How commands print: tables and sentences for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from cyclopts import Parameter, validators
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import StyleType
from rich.table import Column as TableColumn
from rich.table import Table
from rich.text import Text

from pilothouse.cli.safe import safe
from pilothouse.clock import SystemClock, from_datetime

AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON for programs.")]

AT_LEAST_ONE = validators.Number(gte=1)
Limit = Annotated[int, Parameter(help="How many.", validator=AT_LEAST_ONE)]

STATE_STYLES: Mapping[str, str] = {
    "queued": "yellow",
    "running": "cyan",
    "cancelling": "magenta",
    "waiting": "blue",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "magenta",
    "lost": "red",
    "suspended": "blue",
    "draining": "yellow",
    "stopped": "dim",
    "retryable": "yellow",
    "intended": "cyan",
    "unknown": "bold yellow",
    "open": "bold red",
    "closed": "dim",
    "pending": "blue",
    "firing": "bold red",
    "resolved": "dim",
    "critical": "bold red",
    "warning": "yellow",
    "well": "green",
    "off": "dim",
    "approved": "green",
    "rejected": "bold red",
    "returned": "yellow",
    "expired": "magenta",
    "withdrawn": "dim",
}

Column = str | tuple[str, Literal["right", "fold"]]
"""A heading; or one of numbers, to the right; or one whose text may take several lines. Others stay on one line."""

PIPE_WIDTH = 160
"""Columns of what is no terminal: programs and files do not wrap."""

FOLDED_WIDTH = 16
"""What a column that may fold needs in order to read well."""

GAP = 2


class _Console(Console):
    """Prints text as it is: no markup, and nothing that a terminal would obey.

    Leaves a reader that went away to `main`, as a write without rich does.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=safe(segment.text))

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console() -> Console:
    made = _Console(highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = PIPE_WIDTH
    return made


def errors() -> Console:
    return _Console(stderr=True, highlight=False, markup=False, emoji=False)


def print_json(value: object) -> None:
    """One document on one line, so that lines of several commands can be joined."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode() + "\n")
    sys.stdout.flush()


def state(name: str) -> Text:
    return Text(name, style=STATE_STYLES.get(name, ""))


def table(*columns: Column) -> Table:
    made = _empty_table()
    for column in columns:
        heading, kind = (column, "") if isinstance(column, str) else column
        justify: Literal["left", "right"] = "right" if kind == "right" else "left"
        made.add_column(heading, justify=justify, overflow="fold", no_wrap=kind != "fold")
    return made


class _Table(Table):
    """Cells are text, never markup, and as wide as they are printed."""

    def add_row(self, *cells: RenderableType | None, style: StyleType | None = None, end_section: bool = False) -> None:
        texts = [Text(safe(cell)) if isinstance(cell, str) else cell for cell in cells]
        super().add_row(*texts, style=style, end_section=end_section)


def _empty_table() -> Table:
    return _Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold", show_edge=False)


def print_table(made: Table, *, empty: str, spare: Sequence[str] = ()) -> None:
    """The table, or a sentence; `spare` columns go, in this order, where the terminal is too narrow."""
    out = console()
    if not made.row_count:
        out.print(empty, style="dim")
        return
    out.print(fitted(made, out.width, spare=spare))


def fitted(made: Table, width: int, *, spare: Sequence[str] = ()) -> Table:
    """The table without the `spare` columns that there is no room for; if that is not enough, its widest ones wrap."""
    for heading in spare:
        if _least_width(made) > width:
            made = _without(made, heading)
    for column in sorted(made.columns, key=_column_width, reverse=True):
        if _least_width(made) > width:
            column.no_wrap = False
    return made


def _least_width(made: Table) -> int:
    return sum(_column_width(column) + GAP for column in made.columns) - GAP


def _column_width(column: TableColumn) -> int:
    widest = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
    return widest if column.no_wrap else min(widest, FOLDED_WIDTH)


def _without(made: Table, heading: str) -> Table:
    kept = [column for column in made.columns if column.header != heading]
    slim = _empty_table()
    for column in kept:
        slim.add_column(column.header, justify=column.justify, overflow=column.overflow, no_wrap=column.no_wrap)
    for cells in zip(*(column.cells for column in kept), strict=True):
        slim.add_row(*cells)
    return slim


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def facts(pairs: Sequence[tuple[str, object]]) -> Table:
    """Names and values, those without a value left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, ""):
            grid.add_row(name, value if isinstance(value, Text) else Text(safe(str(value))))
    return grid


def instant(text: str | None) -> datetime | None:
    """The instant of an ISO 8601 text."""
    return None if text is None else datetime.fromisoformat(text)


def clock_time(text: str | None) -> str:
    """An instant, without the date if it is today's, in UTC."""
    moment = instant(text)
    if moment is None:
        return ""
    today = SystemClock().now_us() // 86_400_000_000 == from_datetime(moment) // 86_400_000_000
    return f"{moment.astimezone(UTC):{'%H:%M:%S' if today else '%Y-%m-%d %H:%M:%S'}}"


def duration(start: str | None, end: str | None) -> str:
    """What lies between two instants, in the unit that reads best."""
    first, last = instant(start), instant(end)
    if first is None or last is None:
        return ""
    return seconds((last - first).total_seconds())


def seconds(value: float) -> str:
    """A length of time. Where machines' clocks differ an end may lie before its start: that is no time at all."""
    value = max(0.0, value)
    if value < 1:
        return f"{value * 1000:.1f} ms"
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(int(value), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 120 else f"{minutes} min {rest} s"


def pretty(value: Any) -> str:
    """JSON over several lines."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def shorten(value: Any, limit: int = 80) -> str:
    """A value on one line."""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    text = safe(" ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 1] + "…"
