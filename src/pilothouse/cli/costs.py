"""`cost`: report, reprice, reconcile."""

from __future__ import annotations

import csv
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import principal, run
from pilothouse.clock import from_datetime, to_datetime
from pilothouse.config import Settings, load_settings
from pilothouse.control import costs as verbs
from pilothouse.control.costs import PriceOf, Span
from pilothouse.domain.costs import Compared
from pilothouse.domain.exports import Export, read_export
from pilothouse.domain.limits import Unit, show_amount
from pilothouse.domain.prices import Usage
from pilothouse.domain.words import counted
from pilothouse.errors import FieldError, InvalidInput
from pilothouse.store.database import Database

By = Literal["agent", "version", "model", "tenant", "day", "user", "tool", "platform"]
FIRST, LAST = "2000-01-01", "9999-12-31"


def report(
    *,
    by: Annotated[By, Parameter(help="What a line is of; version is that of the agent's code.")] = "agent",
    first: Annotated[date | None, Parameter(name="--from", help="The first day; this month's unless given.")] = None,
    last: Annotated[date | None, Parameter(name="--to", help="The last day; today unless given.")] = None,
    tenant: Annotated[str | None, Parameter(help="Only this tenant's runs.")] = None,
    form: Annotated[Literal["table", "csv", "json"], Parameter(name="--format", help="How to print it.")] = "table",
    as_json: AsJson = False,
) -> None:
    """What was spent, the dearest first; with the runs that it was for, and what a successful one has cost."""
    calendar = load_settings().calendar
    span, lines = run(lambda db: verbs.report(db, by, calendar, span=_span(first, last), tenant=tenant))
    rows = [verbs.public(line, lines, by) for line in lines]
    if as_json or form == "json":
        return output.print_json({"by": by, "from": span.first, "to": span.last, "items": rows})
    if form == "csv":
        return _print_csv(by, rows)
    made = output.table(
        (by, "fold"), ("calls", "right"), ("tokens", "right"), ("actions", "right"), ("cost", "right"),
        ("share", "right"), ("reserved", "right"), ("runs", "right"), ("succeeded", "right"), ("per success", "right"),
    )  # fmt: skip
    for row in rows:
        made.add_row(row[by] or "-", *_line(row))
    output.print_table(made, empty=f"nothing was spent {_told(span)}", spare=("actions", "reserved", "tokens"))
    if rows:
        total = _usd(sum(row["cost_microusd"] for row in rows))
        output.console().print(f"{total} {_told(span)}", style="dim", soft_wrap=True)
    return None


def _line(row: dict[str, Any]) -> list[str]:
    reserved, each = row["reserved_microusd"], row["microusd_per_success"]
    counts = [f"{row[name]:,}" for name in ("calls", "tokens", "actions")]
    runs = [f"{row['runs']:,}", f"{row['succeeded_runs']:,}"]
    money = [_usd(row["cost_microusd"]), f"{row['share']:.0%}", _usd(reserved) if reserved else ""]
    return [*counts, *money, *runs, "" if each is None else _usd(each)]


def _span(first: date | None, last: date | None) -> Span | None:
    if first is None and last is None:
        return None
    return Span(FIRST if first is None else first.isoformat(), LAST if last is None else last.isoformat())


def _told(span: Span) -> str:
    since = "" if span.first == FIRST else f"from {span.first} "
    return f"{since}to {'today' if span.last == LAST else span.last}"


def _print_csv(by: str, rows: list[dict[str, Any]]) -> None:
    """Money in dollars, with six decimals."""
    names = (by, "calls", "tokens", "actions", "cost_microusd", "share", "reserved_microusd", "runs", "succeeded_runs")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    columns = (*names, "microusd_per_success")
    writer.writerow(name.replace("_microusd", "_usd").replace("microusd_", "usd_") for name in columns)
    for row in rows:
        writer.writerow(_plain(row[name]) if "microusd" in name else row[name] for name in columns)


def _plain(microusd: int | None) -> str:
    return "" if microusd is None else f"{microusd / 1_000_000:.6f}"


def _usd(microusd: int) -> str:
    return f"-{_usd(-microusd)}" if microusd < 0 else show_amount(microusd, Unit.MICROUSD)


def reprice(
    *,
    since: Annotated[datetime, Parameter(name="--from", help="Calls since then, such as 2026-11-01 (UTC).")],
    dry_run: Annotated[bool, Parameter(negative="", help="Say what would be booked.")] = False,
    as_json: AsJson = False,
) -> None:
    """Recompute what calls have cost by today's price list and overrides, and book the differences."""
    settings = load_settings()
    at = _instant(since)
    price_of = _price_of(settings)
    found = run(lambda db: verbs.reprice(db, at, price_of, settings.calendar, principal=principal(), dry_run=dry_run))
    if as_json:
        return output.print_json(found._asdict() | {"unknown": sorted(found.unknown), "booked": not dry_run})
    out = output.console()
    would = "would cost" if dry_run else "cost"
    out.print(
        f"{found.changed} of {found.calls} calls {would} something else by today's prices: "
        f"{_usd(found.before_microusd)} before, {_usd(found.after_microusd)} now",
        soft_wrap=True,
    )
    for model in sorted(found.unknown):
        output.errors().print(f"warning: no price is known for {model}; its calls stay as they are", soft_wrap=True)
    return None


def _instant(moment: datetime) -> int:
    return from_datetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _price_of(settings: Settings) -> PriceOf:
    from pilothouse.domain.routes import parse_model
    from pilothouse.errors import UnknownPrice
    from pilothouse.llm.prices import PriceList

    prices = PriceList(settings.prices)

    def price_of(model: str, usage: Usage, at: int) -> int | None:
        try:
            return prices.cost(parse_model(model), usage, to_datetime(at)).microusd
        except (UnknownPrice, ValueError):
            return None

    return price_of


def reconcile(
    file: Annotated[Path, Parameter(help="A CSV file of a provider.")],
    *,
    provider: Annotated[
        str | None, Parameter(help="Whose models are meant, such as openai; found by the columns where it can be.")
    ] = None,
    mapping: Annotated[
        tuple[str, ...],
        Parameter(name="--map", negative="", help="Which column holds what: day, model, input, output, cost=COLUMN."),
    ] = (),
    book: Annotated[
        bool, Parameter(negative="", help="Settle what is unsettled by it, and book the differences.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the ledger with a provider's usage or cost export, day by day and model by model."""
    settings, export = load_settings(), _read(file, mapping)
    whose = provider or export.provider
    rows = run(lambda db: verbs.reconcile(db, export.figures, whose))
    booked = run(lambda db: _book(db, rows, settings)) if book else None
    if as_json:
        items = [verbs.compared_view(row) for row in rows]
        told: dict[str, Any] = {"provider": whose, "columns": dict(export.columns), "items": items}
        return output.print_json(told | ({} if booked is None else {"booked": booked}))
    _warn(settings)
    made = output.table(
        "day", ("model", "fold"), ("ours", "right"), ("reserved", "right"), ("theirs", "right"),
        ("difference", "right"), ("our tokens", "right"), ("theirs", "right"), ("", "fold"),
    )  # fmt: skip
    for row in rows:
        made.add_row(*_cells(row))
    output.print_table(made, empty="the file holds no days with figures")
    if booked is not None:
        out = output.console()
        out.print(
            f"{counted(booked['settled'], 'reservation')} settled with {_usd(booked['settled_microusd'])}, and "
            f"{_usd(booked['adjusted_microusd'])} booked beside",
            soft_wrap=True,
        )
        if booked["left"]:
            why = "their day goes on, calls are under way, or one side knows no cost"
            left = counted(len(booked["left"]), "row")
            out.print(f"{left} left alone: {why}", style="dim", soft_wrap=True)
    return None


async def _book(db: Database, rows: list[Compared], settings: Settings) -> dict[str, Any]:
    booked, left = await verbs.book(db, rows, settings.calendar, principal=principal())
    return verbs.booked_view(booked, left)


def _read(file: Path, mapping: tuple[str, ...]) -> Export:
    pairs = dict(each.partition("=")[::2] for each in mapping)
    try:
        return read_export(file.read_text(encoding="utf-8-sig"), pairs)
    except ValueError as error:
        raise InvalidInput(f"{file}: {error}", [FieldError("file", str(error))]) from error


def _warn(settings: Settings) -> None:
    if settings.budget_timezone != "UTC":
        told = f"days of exports are in UTC, ours in {settings.budget_timezone}: neighbouring days can differ"
        output.errors().print(f"warning: {told}", style="yellow", soft_wrap=True)


def _cells(row: Compared) -> list[str]:
    note = "not ours" if not row.names else "not theirs" if row.theirs == (None, None) else ""

    def money(value: int | None) -> str:
        return "" if value is None else _usd(value)

    def count(value: int | None) -> str:
        return "" if value is None else f"{value:,}"

    return [
        row.day, row.model or "all", money(row.ours.microusd), money(row.held_microusd or None),
        money(row.theirs.microusd), money(row.difference_microusd), count(row.ours.tokens), count(row.theirs.tokens),
        note,
    ]  # fmt: skip
