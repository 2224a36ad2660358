"""Room for a run that a limit keeps waiting: a button for each limit, which gives more and lets the run go on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pilothouse.control import limits, run_budgets
from pilothouse.control.run_budgets import Grant
from pilothouse.domain.budgets import Hit, command_for, parse_amount, plain, room_for
from pilothouse.domain.limits import Limit, Period, Unit, show_amount
from pilothouse.errors import FieldError, Forbidden, InvalidInput
from pilothouse.web.access import Caller
from pilothouse.web.backend import Backend


def offers(hits: Iterable[Hit]) -> list[dict[str, Any]]:
    """What a form sends for each limit that has no room, and what its button says."""
    return [
        {
            "scope": hit.account,
            "period": hit.kind,
            "unit": hit.unit,
            "amount": plain(room_for(hit), hit.unit),
            "says": _says(hit),
            "command": command_for(hit),
        }
        for hit in hits
    ]


def _says(hit: Hit) -> str:
    amount = show_amount(room_for(hit), hit.unit)
    return f"Grant {amount} more" if hit.is_own else f"Raise the limit of {hit.account} to {amount} per {hit.kind}"


async def make(backend: Backend, caller: Caller, id: str, form: Mapping[str, str]) -> str:
    """Does what a button says. Whoever presses one that somebody has pressed before takes nothing away."""
    if caller.tenant is not None:
        raise Forbidden(f"a key of tenant {caller.tenant!r} sets no limits; ask an operator of all tenants")
    scope, reason = form.get("scope", ""), form.get("reason", "").strip()[:2000]
    unit, period, amount = _asked(form)
    if scope == f"run:{id}":
        wanted = Grant(id, unit, amount)
        granted = await run_budgets.grant(backend.db, wanted, principal=caller.principal, reason=reason)
        return f"It may use {show_amount(granted.limit, unit)}."
    raised = Limit(scope, period, unit, amount)
    await limits.raise_limit(backend.db, raised, principal=caller.principal, reason=reason or f"room for run {id}")
    return f"The limit of {scope} per {period} is {show_amount(amount, unit)} or more."


def _asked(form: Mapping[str, str]) -> tuple[Unit, Period, int]:
    try:
        unit, period = Unit(form.get("unit", "")), Period(form.get("period", ""))
        amount = parse_amount(form.get("amount", ""), unit)
    except ValueError as error:
        raise InvalidInput(str(error), [FieldError("amount", str(error))]) from error
    return unit, period, amount or 0
