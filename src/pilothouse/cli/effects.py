"""`effects`: list, show, resolve."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from cyclopts import Parameter

from pilothouse import payloads
from pilothouse.cli import output
from pilothouse.cli.output import AsJson, Limit
from pilothouse.cli.session import principal, run
from pilothouse.clock import from_datetime
from pilothouse.control import effects as verbs
from pilothouse.control.effects import EffectFilter, Resolution
from pilothouse.errors import FieldError, InvalidInput

EffectId = Annotated[str, Parameter(help="The effect's id.")]
Since = Annotated[str | None, Parameter(help="From this instant on: ISO 8601 with a time zone.")]


def list_effects(
    *,
    unknown: Annotated[bool, Parameter(negative="", help="Only those of which nobody knows the outcome.")] = False,
    run_id: Annotated[str | None, Parameter(name="--run", help="Only those of this run.")] = None,
    agent: Annotated[str | None, Parameter(help="Only those of this agent.")] = None,
    tool: Annotated[str | None, Parameter(help="Only those of this tool.")] = None,
    tenant: Annotated[str | None, Parameter(help="Only those of this tenant.")] = None,
    since: Since = None,
    after: Annotated[str | None, Parameter(help="What `next` of the page before says.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Calls that change the world: those of unknown outcome first, then the newest."""
    wanted = EffectFilter(run_id, agent, tool, tenant, instant(since), is_open=unknown)
    rows = run(lambda db: verbs.list_effects(db, wanted, after=after, limit=limit + 1))
    following = verbs.place_of(rows[limit - 1]) if len(rows) > limit else None
    if as_json:
        return output.print_json({"items": [verbs.public(row) for row in rows[:limit]], "next": following})
    made = output.table("effect", "state", ("age", "right"), "tool", "platform", "agent", "run", ("arguments", "fold"))
    for row in rows[:limit]:
        made.add_row(
            row["id"],
            output.state(row["state"]),
            output.seconds((row["now"] - row["intended_at"]) / 1_000_000),
            row["tool"],
            row["platform"] or "",
            row["agent"],
            row["run_id"],
            output.shorten(row["arguments"] or "", 60),
        )
    empty = "no effect is of unknown outcome" if unknown else "no effects; tools that change the world make them"
    output.print_table(made, empty=empty, spare=("platform", "agent", "run", "arguments"))
    if following is not None:
        output.console().print(f"more: --after {following}", style="dim", soft_wrap=True)
    return None


def show(effect_id: EffectId, *, as_json: AsJson = False) -> None:
    """One effect: its exact arguments, its calls, the question that is asked about it, and how to answer."""
    found = run(lambda db: verbs.show_effect(db, effect_id))
    if as_json:
        return output.print_json(found)
    out = output.console()
    out.print(output.facts(_facts(found)))
    calls = output.table("attempt", "outcome", "at", ("took", "right"))
    for call in found["calls"]:
        took = output.seconds(call["latency_us"] / 1_000_000)
        calls.add_row(str(call["attempt"]), call["outcome"], output.clock_time(call["started_at"]), took)
    if found["calls"]:
        out.print(calls)
    if found["resolve"]:
        out.print(f"next: `{found['resolve']}`", style="dim", soft_wrap=True)
    return None


def _facts(found: dict[str, Any]) -> list[tuple[str, Any]]:
    arguments = None if found["arguments"] is None else payloads.encode(found["arguments"])
    return [
        ("effect", found["id"]),
        ("state", output.state(found["state"])),
        ("tool", f"{found['tool']} ({found['effect']})"),
        ("platform", found["platform"]),
        ("arguments", arguments),
        ("run", f"{found['run_id']}, step {found['key']!r}, attempt {found['attempt']}"),
        ("agent", found["agent"]),
        ("code", found["fingerprint"]),
        ("tenant", found["tenant"] if found["tenant"] != "default" else None),
        ("tries", found["tries"]),
        ("intended", output.clock_time(found["intended_at"])),
        ("ended", output.clock_time(found["finished_at"])),
        ("question", found["question"]),
        ("said by", found["resolved_by"]),
        ("note", found["note"]),
        ("corrects", found["corrects"]),
    ]


def resolve(
    effect_id: EffectId,
    *,
    happened: Annotated[bool, Parameter(negative="--did-not-happen", help="Whether the call took place.")],
    note: Annotated[str, Parameter(help="How you know; it goes into the audit.")],
    result: Annotated[
        str | None, Parameter(help="What the call returned, as JSON; null unless given.", allow_leading_hyphen=True)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether an effect of unknown outcome took place; its run goes on accordingly."""
    from pilothouse.config import load_settings

    said = Resolution(happened, note, _parse(result))
    calendar, who = load_settings().calendar, principal()
    found = run(lambda db: verbs.resolve_effect(db, effect_id, said, principal=who, calendar=calendar))
    if as_json:
        return output.print_json(found)
    told = "took place" if happened else "did not take place"
    return output.console().print(f"effect {effect_id} {told}, says {found['resolved_by'] or who}", soft_wrap=True)


def _parse(result: str | None) -> Any:
    try:
        return None if result is None else payloads.decode(result)
    except ValueError as error:
        raise InvalidInput(f"the result is not JSON: {error}", [FieldError("result", str(error))]) from error


def instant(text: str | None) -> int | None:
    """Microseconds. Raises InvalidInput for what is no instant."""
    if text is None:
        return None
    try:
        return from_datetime(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        told = f"{text!r} is not an instant in ISO 8601 with a time zone, such as 2026-01-31T09:00:00Z"
        raise InvalidInput(told, [FieldError("since", told)]) from error
