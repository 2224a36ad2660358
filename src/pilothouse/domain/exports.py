"""Usage and cost exports of model providers as CSV: which column says what, and what the rows come to."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from pilothouse.domain.costs import Figure, Place, total_by_place

MICROUSD = 1_000_000
MOST = 10**11
"""Dollars or tokens of a row: sums of many still fit into 64 bits."""

FIELDS = ("day", "model", "input", "output", "cost")

TITLES: Mapping[str, tuple[str, ...]] = {
    "day": ("usage_date_utc", "start_time_iso", "start_time", "date", "day", "usage_date", "timestamp"),
    "model": ("model_version", "model", "line_item", "model_name"),
    "input": (
        "input_tokens",
        "usage_input_tokens_no_cache+usage_input_tokens_cache_write_5m+usage_input_tokens_cache_write_1h"
        "+usage_input_tokens_cache_read",
        "usage_input_tokens_no_cache+usage_input_tokens_cache_write+usage_input_tokens_cache_read",
        "usage_input_tokens_no_cache",
        "prompt_tokens",
        "n_context_tokens_total",
    ),
    "output": ("output_tokens", "usage_output_tokens", "completion_tokens", "n_generated_tokens_total"),
    "cost": ("amount_value", "cost_usd", "cost", "amount", "amount_usd", "usd"),
}
"""The names of columns in the exports that are known, and common ones; several with + between them are added up."""

NO_MODEL = "no model"

PROVIDERS: Mapping[str, str] = {"amount_value": "openai", "num_model_requests": "openai", "usage_date_utc": "anthropic"}
"""Columns that only one provider's exports have."""


@dataclass(frozen=True, slots=True)
class Export:
    """What a file says. `provider` None: its columns are nobody's in particular."""

    provider: str | None
    figures: Mapping[Place, Figure]
    columns: Mapping[str, str]


class _Columns(NamedTuple):
    day: str
    model: str | None
    input: str | None
    output: str | None
    cost: str | None


def read_export(text: str, mapping: Mapping[str, str]) -> Export:
    """Reads a file. `mapping` names columns where they are not found by themselves: {"cost": "amount_usd"}.

    Raises ValueError that names the column or the row that does not fit.
    """
    lines = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    reader = csv.DictReader(f"{line}\n" for line in lines)
    try:
        return _read(reader, mapping)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: it is no CSV: {error}") from error


def _read(reader: csv.DictReader[str], mapping: Mapping[str, str]) -> Export:
    titles = [title.strip() for title in reader.fieldnames or ()]
    columns = _find_columns(titles, mapping)
    reader.fieldnames = titles
    provider = next((PROVIDERS[title] for title in titles if title in PROVIDERS), None)
    figures = total_by_place(_with_models(list(_rows(reader, columns))))
    named = {field: column for field, column in columns._asdict().items() if column}
    return Export(provider, figures, named)


def _find_columns(titles: Sequence[str], mapping: Mapping[str, str]) -> _Columns:
    unknown = sorted(set(mapping) - set(FIELDS))
    if unknown:
        raise ValueError(f"there is no field {unknown[0]!r} to map; the fields are {', '.join(FIELDS)}")
    found = {field: mapping.get(field) or _known(titles, field) for field in FIELDS}
    for field, column in mapping.items():
        if not _has(titles, column):
            raise ValueError(f"the file has no column {column!r} for {field}; it has {', '.join(titles)}")
    day = found["day"]
    if day is None or not (found["cost"] or found["input"] or found["output"]):
        raise ValueError(
            f"the file has no column for {'the day' if day is None else 'a cost or tokens'}; it has "
            f"{', '.join(titles) or 'none'}: name it with --map {'day' if day is None else 'cost'}=COLUMN"
        )
    return _Columns(day, found["model"], found["input"], found["output"], found["cost"])


def _known(titles: Sequence[str], field: str) -> str | None:
    return next((title for title in TITLES[field] if _has(titles, title)), None)


def _has(titles: Sequence[str], column: str) -> bool:
    return all(part in titles for part in column.split("+"))


def _rows(reader: csv.DictReader[str], columns: _Columns) -> Iterator[tuple[str, str, Figure]]:
    for row in reader:
        values = {title: (value or "").strip() for title, value in row.items() if isinstance(title, str)}
        if values.get("amount_currency", "").lower() not in ("", "usd"):
            raise ValueError(f"line {reader.line_num}: the amount is in {values['amount_currency']}, not in dollars")
        cost = _number(values, columns.cost, reader.line_num)
        tokens = [_number(values, column, reader.line_num) for column in (columns.input, columns.output)]
        if cost is None and all(count is None for count in tokens):
            continue  # a day on which nothing was used
        model = _model(values.get(columns.model, "")) if columns.model else ""
        counted = None if all(count is None for count in tokens) else int(sum(count or 0 for count in tokens))
        microusd = None if cost is None else round(cost * MICROUSD)
        yield _day(values.get(columns.day, ""), reader.line_num), model, Figure(microusd, counted)


def _with_models(rows: Sequence[tuple[str, str, Figure]]) -> list[tuple[str, str, Figure]]:
    """A file without models speaks of all together. In one with models a row without is about something else, such as
    searches of the web: as all together it would be compared with everything, and booked a second time.
    """
    has_models = any(model for _, model, _ in rows)
    return [(day, model or (NO_MODEL if has_models else ""), figure) for day, model, figure in rows]


def _model(text: str) -> str:
    """A line item may say of which tokens it speaks: `gpt-5-mini-2025-08-07, input`."""
    return text.partition(",")[0].strip()


def _number(values: Mapping[str, str], column: str | None, line: int) -> Decimal | None:
    if column is None:
        return None
    found = [values.get(part, "") for part in column.split("+")]
    try:
        numbers = [Decimal(text.lstrip("$").replace(",", "")) for text in found if text]
    except InvalidOperation:
        raise ValueError(f"line {line}: column {column} holds {found[0]!r}, which is no number") from None
    if any(not number.is_finite() or abs(number) > MOST for number in numbers):
        raise ValueError(f"line {line}: column {column} holds {found[0][:50]!r}, which is no number, or too large")
    return sum(numbers, Decimal(0)) if numbers else None


def _day(text: str, line: int) -> str:
    """Days of exports are days in UTC."""
    try:
        if text.isdigit():
            return datetime.fromtimestamp(int(text), UTC).date().isoformat()
        if len(text) <= len("2026-11-21"):
            return date.fromisoformat(text).isoformat()
        moment = datetime.fromisoformat(text.replace(" UTC", "+00:00"))
        return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date().isoformat()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"line {line}: {text!r} is no day; write it as 2026-11-21") from None
