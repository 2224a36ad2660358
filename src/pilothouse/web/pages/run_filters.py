"""What the list of runs is narrowed by: read from its address, written into links, and said as a command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from pilothouse.clock import from_datetime, isoformat
from pilothouse.control.run_lists import Filter
from pilothouse.domain.runs import RunState
from pilothouse.errors import FieldError, InvalidInput

SPANS = {"1h": ("last hour", 3_600), "24h": ("last 24 hours", 86_400), "7d": ("last 7 days", 604_800)}
NAMES = ("state", "agent", "version", "lane", "tenant", "text", "last", "from", "to", "error_type")
LONGEST = 200
STATES = tuple(str(state) for state in RunState)


@dataclass(frozen=True, slots=True)
class RunQuery:
    """The fields of the form that are filled in. `tenant` is that of the caller, where its key is of one."""

    asked: Mapping[str, str]
    wanted: Filter

    @property
    def error_type(self) -> str | None:
        return self.asked.get("error_type")

    def address(self, path: str, **changes: str | None) -> str:
        """A page with these fields, and others changed."""
        fields = {**self.asked, **changes}
        query = urlencode({name: value for name, value in fields.items() if value})
        return f"{path}?{query}" if query else path

    def command(self, verb: str) -> str:
        """The command for the same runs."""
        named = {
            "state": self.wanted.state,
            "agent": self.wanted.agent,
            "version": self.wanted.version,
            "lane": self.wanted.lane,
            "tenant": self.wanted.tenant,
            "text": self.wanted.text,
            "error-type": self.error_type,
            "since": None if self.wanted.created_after is None else isoformat(self.wanted.created_after)[:19] + "Z",
            "until": None if self.wanted.created_before is None else isoformat(self.wanted.created_before)[:19] + "Z",
        }
        return command_of(verb, named, or_all=verb not in ("runs list", "dead list"))


def command_of(verb: str, named: Mapping[str, str | None], *, or_all: bool) -> str:
    """A command with a filter as its options; `or_all`: without any it says expressly that it means all."""
    options = [f"--{name.replace('_', '-')} {shlex.quote(value)}" for name, value in named.items() if value]
    if not options and or_all:
        options = ["--all"]
    return " ".join(("pilothouse", verb, *options))


def read_query(given: Mapping[str, str], tenant: str | None, now_us: int) -> RunQuery:
    """Reads the fields. `tenant` is the only one that the caller may see, None: any. Raises InvalidInput."""
    asked = {name: value.strip()[:LONGEST] for name in NAMES if (value := given.get(name, "")).strip()}
    state = asked.get("state")
    if state is not None and state not in STATES:
        raise _unfit("state", f"{state!r} is none; use one of {', '.join(STATES)}")
    last = asked.get("last")
    if last is not None and last not in SPANS:
        raise _unfit("last", f"{last!r} is none; use one of {', '.join(SPANS)}")
    since = now_us - SPANS[last][1] * 1_000_000 if last else _instant(asked, "from")
    wanted = Filter(
        state,
        asked.get("agent"),
        asked.get("lane"),
        tenant or asked.get("tenant"),
        created_after=since,
        created_before=_instant(asked, "to"),
        version=asked.get("version"),
        text=asked.get("text"),
    )
    return RunQuery(asked, wanted)


def _instant(asked: Mapping[str, str], name: str) -> int | None:
    """What a browser's field for a time says, which has no zone; it is taken for UTC, as the field's label says."""
    text = asked.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return from_datetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as error:
        raise _unfit(name, f"{text!r} is no instant, such as 2026-01-31T09:00") from error


def _unfit(name: str, told: str) -> InvalidInput:
    return InvalidInput(f"{name}: {told}", [FieldError(name, told)])


def shown_query(query: RunQuery) -> dict[str, Any]:
    """Every field of the form, filled in or empty."""
    return {name: query.asked.get(name, "") for name in NAMES}
