"""`budget`: list, set, grant, explain, unsettled, settle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from pilothouse.cli import output
from pilothouse.cli.output import AsJson, Limit
from pilothouse.cli.session import principal, run
from pilothouse.config import load_settings
from pilothouse.control import budgets as verbs
from pilothouse.control import limits, reservations, run_budgets
from pilothouse.control.reservations import Outcome
from pilothouse.control.run_budgets import Grant
from pilothouse.control.views import view
from pilothouse.domain.budgets import Level, command_for, parse_amount
from pilothouse.domain.limits import Limit as Wanted
from pilothouse.domain.limits import Period, Unit, show_amount
from pilothouse.domain.words import counted
from pilothouse.errors import FieldError, InvalidInput

SHOWN = 20

Usd = Annotated[str | None, Parameter(help="Dollars, such as 2.50.")]
Tokens = Annotated[str | None, Parameter(help="Tokens of models, in and out.")]
Actions = Annotated[str | None, Parameter(help="Calls of tools that change the world.")]
Calls = Annotated[str | None, Parameter(help="Calls of tools; only for runs.")]
Seconds = Annotated[str | None, Parameter(help="Seconds of work; only for runs.")]
Reason = Annotated[str, Parameter(help="Why; it goes into the audit.")]
RunId = Annotated[str, Parameter(help="The run's id.")]

LEVELS = {
    Level.FINE: ("", ""),
    Level.LOW: ("▲ low", "yellow"),
    Level.USED_UP: ("■ used up", "bold red"),
    Level.NO_LIMIT: ("lifted", "dim"),
}


def list_budgets(
    *,
    show_all: Annotated[
        bool, Parameter(name="--all", negative="", help="All accounts, and the runs that are under way.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Every limit as it stands: what is spent, reserved and free, how fast it goes, and when nothing will be left."""
    settings = load_settings()
    found = run(lambda db: verbs.list_budgets(db, settings.calendar, with_runs=show_all))
    rows = [verbs.public(budget, found.now, settings.degrade_at) for budget in found.items]
    if as_json:
        return output.print_json(rows)
    shown = rows if show_all else rows[:SHOWN]
    empty = "no limits; start a worker, which brings those of the settings"
    output.print_table(limits_table(shown), empty=empty, spare=("per hour",))
    if len(shown) < len(rows):
        output.console().print(f"{len(rows) - len(shown)} more with --all", style="dim")
    return None


def limits_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A line per limit: what is spent, reserved and free of it, and when nothing will be left."""
    made = output.table(
        ("account", "fold"), "period", ("limit", "right"), ("spent", "right"), ("reserved", "right"), ("free", "right"),
        ("used", "right"), ("per hour", "right"), "used up at", "",
    )  # fmt: skip
    for row in rows:
        made.add_row(*_cells(row))
    return made


def _cells(row: dict[str, Any]) -> list[str | Text]:
    unit = Unit(row["unit"])
    mark, style = LEVELS[Level(row["level"])]

    def shown(name: str) -> str:
        if row[name] is None:
            return ""
        text = show_amount(round(row[name]), unit)
        return text if name == "limit" else text.partition(" ")[0]

    forecast = output.clock_time(row["exhausted_at"])
    share = "" if row["limit"] is None else f"{row['used_share']:.0%}"
    return [
        row["account"], row["period"], shown("limit") or "none", shown("settled"), shown("reserved"), shown("free"),
        share, shown("burn_per_hour"), forecast, Text(mark, style=style),
    ]  # fmt: skip


def set_budget(
    scope: Annotated[
        str,
        Parameter(help="global, tenant:NAME, agent:NAME, user:NAME, tool:NAME, platform:NAME, run:ID or run@AGENT."),
    ],
    *,
    usd: Usd = None,
    tokens: Tokens = None,
    actions: Actions = None,
    calls: Calls = None,
    seconds: Seconds = None,
    per: Annotated[
        Literal["day", "month"] | None, Parameter(help="Day unless said; a run's limits are for the whole run.")
    ] = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Set a limit from now on, or lift it with `none`. `*` in the place of a name is each of a kind."""
    unit, amount = _one_amount(usd=usd, tokens=tokens, actions=actions, calls=calls, seconds=seconds)
    period = _period(scope, per)
    limit = Wanted(scope, period, unit, amount)
    before = run(lambda db: limits.set_limit(db, limit, principal=principal(), reason=reason))
    settings = load_settings()
    over = [] if amount is None else run(lambda db: verbs.over_limit(db, limit, settings.calendar))
    told = {"scope": scope, "period": period, "unit": unit, "amount": amount, "before": before and before["amount"]}
    if as_json:
        return output.print_json(told | {"over": [standing.account for standing in over]})
    out = output.console()
    shown = "lifted" if amount is None else show_amount(amount, unit)
    was = "none before" if before is None or before["amount"] is None else f"was {show_amount(before['amount'], unit)}"
    out.print(f"the limit of {scope} per {period} is {shown} ({was})", soft_wrap=True)
    for standing in over:
        used = show_amount(standing.used, unit)
        told_over = f"{standing.account} has used {used} of it already: nothing more until {standing.period} is over"
        output.errors().print(f"warning: {told_over}", style="yellow", soft_wrap=True)
    return None


def grant(
    run_id: RunId,
    *,
    usd: Usd = None,
    tokens: Tokens = None,
    actions: Actions = None,
    calls: Calls = None,
    seconds: Seconds = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Let a run use so much more than it has used so far; where it waited for that, it goes on."""
    unit, amount = _one_amount(usd=usd, tokens=tokens, actions=actions, calls=calls, seconds=seconds)
    wanted = Grant(run_id, unit, amount or 0)
    granted = run(lambda db: run_budgets.grant(db, wanted, principal=principal(), reason=reason))
    if as_json:
        return output.print_json(run_budgets.granted_view(wanted, granted))
    out = output.console()
    limit, used = show_amount(granted.limit, unit), show_amount(granted.used, unit)
    out.print(f"run {run_id} may use {limit}, of which {used} are used", soft_wrap=True)
    for hit in granted.waits:
        told = f"it still waits for {hit.account} ({hit.period}); give more: `{command_for(hit)}`"
        out.print(told, soft_wrap=True)
    if not granted.waits:
        out.print("the run goes on", soft_wrap=True)
    return None


def _period(scope: str, per: str | None) -> Period:
    if not scope.startswith(("run:", "run@")):
        return Period(per or "day")
    if per is not None:
        told = f"a limit of {scope} is for the whole run, not per {per}; leave --per out"
        raise InvalidInput(told, [FieldError("per", told)])
    return Period.RUN


def _one_amount(**given: str | None) -> tuple[Unit, int | None]:
    names = {"usd": Unit.MICROUSD}
    chosen = [(names.get(name) or Unit(name), text) for name, text in given.items() if text is not None]
    if len(chosen) != 1:
        told = "give one of --usd, --tokens, --actions, --calls and --seconds"
        raise InvalidInput(told, [FieldError("amount", told)])
    ((unit, text),) = chosen
    try:
        return unit, parse_amount(text, unit)
    except ValueError as error:
        raise InvalidInput(str(error), [FieldError(unit, str(error))]) from error


def explain(run_id: RunId, *, as_json: AsJson = False) -> None:
    """Every limit that applies to a run: its figures, who set it, and whether it has held the run up."""
    settings = load_settings()
    found = run(lambda db: run_budgets.explain(db, run_id, settings.calendar))
    told = run_budgets.explained_view(found, settings.degrade_at, settings.routes)
    if as_json:
        return output.print_json(told)
    made = output.table(
        ("account", "fold"), "period", ("limit", "right"), ("spent", "right"), ("reserved", "right"), ("free", "right"),
        ("set by", "fold"), "did", "",
    )  # fmt: skip
    for row in told["rules"]:
        account, *cells = _cells(row)
        shown = "this run" if account == f"run:{run_id}" else account
        made.add_row(shown, *cells[:5], _origin(row), ", ".join(row["did"]), cells[-1])
    output.print_table(made, empty="no limit applies to it")
    out = output.console()
    for route in told["routes"]:
        calls = counted(route["calls"], "call")
        out.print(
            f"route {route['name']}: {calls}; at most {route['max_calls_per_run']} questions of a run "
            f"(asked: {told['questions']}), {route['max_input_tokens']:,} tokens in and "
            f"{route['max_output_tokens']:,} out for each",
            soft_wrap=True,
        )
    if told["degraded"]:
        out.print(
            f"{told['degraded']} questions went to the smaller route, with little of a budget left", soft_wrap=True
        )
    for command in told["next"]:
        out.print(f"next: give more: `{command}`", style="dim", soft_wrap=True)
    return None


def _origin(row: dict[str, Any]) -> str:
    scope = "" if row["scope"] == row["account"] else f" ({row['scope']})"
    at = "" if row["source"] == "settings" else f", {output.clock_time(row['set_at'])}"
    return f"{row['set_by']}{at}{scope}"


def unsettled(*, limit: Limit = 100, as_json: AsJson = False) -> None:
    """Reservations whose attempt has ended before it could say what its call has cost. They count as spent."""
    rows = [view(row) for row in run(lambda db: reservations.list_unsettled(db, limit=limit))]
    if as_json:
        return output.print_json(rows)
    made = output.table(
        "reservation", "run", ("step", "fold"), ("for", "fold"), ("reserved", "right"), ("tokens", "right"), "since"
    )
    for row in rows:
        made.add_row(
            row["id"],
            row["run_id"] if row["run_state"] else f"{row['run_id']} (pruned)",
            f"{row['key']}, attempt {row['attempt']}",
            row["model"] or row["tool"] or "",
            show_amount(row["microusd"], Unit.MICROUSD),
            f"{row['tokens']:,}",
            output.clock_time(row["created_at"]),
        )
    return output.print_table(made, empty="nothing is unsettled", spare=("tokens", "since"))


def settle(
    reservation: Annotated[str, Parameter(help="The reservation's id.")],
    *,
    usd: Annotated[str, Parameter(help="What the call has cost, in dollars; 0 where it did not happen.")],
    tokens: Annotated[int | None, Parameter(help="Tokens that it has used; as many as reserved unless given.")] = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Say what a call has cost whose attempt could not."""
    _, amount = _one_amount(usd=usd)
    if amount is None:
        raise InvalidInput("say what the call has cost, 0 where it did not happen", [FieldError("usd", "is none")])
    outcome = Outcome(amount, tokens)
    settings = load_settings()
    row = run(
        lambda db: reservations.settle_reservation(
            db, reservation, outcome, settings.calendar, principal=principal(), reason=reason
        )
    )
    if as_json:
        return output.print_json({"id": reservation, "state": row["state"], "microusd": outcome.microusd})
    reserved, used = show_amount(row["microusd"], Unit.MICROUSD), show_amount(outcome.microusd, Unit.MICROUSD)
    return output.console().print(f"reservation {reservation} is settled: {used} of {reserved}", soft_wrap=True)
