"""`alerts`: list, show, rules, acknowledge, accept, silence, silences, unsilence, test."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter, validators

from pilothouse.cli import output
from pilothouse.cli.output import AsJson, Limit
from pilothouse.cli.session import principal, run
from pilothouse.config import load_settings
from pilothouse.control import alert_notices
from pilothouse.control import alerts as verbs
from pilothouse.control.alerts import AlertFilter, SilenceOrder
from pilothouse.domain.alerts import Matcher, Severity
from pilothouse.domain.notices import pick_channel
from pilothouse.store.database import Row

AlertId = Annotated[str, Parameter(help="The alert's id.")]
Pattern = Annotated[str, Parameter(help="A pattern such as agent:refund*.")]

LONG_VALUE = 1_000_000.0


def list_alerts(
    *,
    everything: Annotated[
        bool, Parameter(name="--all", negative="", help="The latest episodes, those that are over too.")
    ] = False,
    severity: Annotated[Severity | None, Parameter(help="Only those of this severity.")] = None,
    rule: Annotated[str | None, Parameter(help="Only those of this rule.")] = None,
    agent: Annotated[str | None, Parameter(help="Only those about this agent.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """What fires or is about to, the gravest first."""
    wanted = AlertFilter(severity=severity, rule=rule, agent=agent)
    if everything:
        rows = run(lambda db: verbs.list_alerts(db, wanted, limit=limit))
    else:
        rows = [row for row in run(verbs.live_alerts) if _is_wanted(row, wanted)][:limit]
    shown = [verbs.public(row) for row in rows]
    if as_json:
        return output.print_json(shown)
    made = output.table("alert", "state", "severity", "rule", ("subject", "fold"), "since", ("what", "fold"))
    for row in shown:
        made.add_row(
            row["id"],
            output.state(row["state"]),
            output.state(row["severity"]),
            row["rule"],
            row["subject"],
            output.clock_time(row["since"]),
            row["text"] + _marks(row),
        )
    empty = (
        "no alert has ever fired" if everything else "no alert fires; `pilothouse alerts rules` shows what is measured"
    )
    return output.print_table(made, empty=empty, spare=("since", "subject", "alert"))


def _is_wanted(row: Row, wanted: AlertFilter) -> bool:
    pairs = ((wanted.severity, row["severity"]), (wanted.rule, row["rule"]), (wanted.agent, row["agent"]))
    return all(asked in (None, found) for asked, found in pairs)


def _marks(row: Row) -> str:
    marks = [f"acknowledged by {row['acknowledged_by']}"] if row["acknowledged_by"] else []
    marks += ["silenced"] if row["is_silenced"] else []
    return f" ({', '.join(marks)})" if marks else ""


def show(alert_id: AlertId, *, as_json: AsJson = False) -> None:
    """One alert: the figures, who was told of it, and what to do."""
    _print(run(lambda db: verbs.show_alert(db, alert_id)), as_json)


def acknowledge(
    alert_id: AlertId,
    *,
    reason: Annotated[str, Parameter(help="What you do about it; it goes into the audit.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say that you look after an alert."""
    _print(run(lambda db: verbs.acknowledge(db, alert_id, principal=principal(), reason=reason)), as_json)


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return output.print_json(found)
    out = output.console()
    unit = found["unit"]
    pairs = [
        ("alert", found["id"]),
        ("state", output.state(found["state"])),
        ("severity", output.state(found["severity"])),
        ("rule", found["rule"]),
        ("subject", found["subject"]),
        ("what", found["text"]),
        ("measured", f"{_amount(found['value'], unit)}; the threshold is {_amount(found['threshold'], unit)}"),
        ("since", output.clock_time(found["since"])),
        ("fired", output.clock_time(found["fired_at"])),
        ("resolved", output.clock_time(found["resolved_at"])),
        ("flaps", f"{found['flaps']} times in the hour before" if found["flaps"] else ""),
        ("acknowledged", found["acknowledged_by"]),
        ("silenced", "yes; `pilothouse alerts silences`" if found["is_silenced"] else ""),
        ("what to do", f"pilothouse runbook show {found['runbook']}"),
    ]
    out.print(output.facts(pairs))
    if found["notices"]:
        made = output.table("told of", "recipient", "queued", "message")
        for row in found["notices"]:
            sent = output.clock_time(row["sent_at"]) or "held for a digest"
            made.add_row(row["event"], row["recipient"], output.clock_time(row["queued_at"]), sent)
        out.print(made)
    return None


def _amount(value: float, unit: str) -> str:
    """A number with its unit, as it reads best."""
    match unit:
        case "share":
            return f"{value:.1%}"
        case "seconds" if not value:
            return "0 s"
        case "seconds":
            return output.seconds(value) if value < LONG_VALUE else f"{value / 86_400:,.0f} days"
        case _:
            return f"{value:,.1f} {unit}" if value % 1 else f"{value:,.0f} {unit}"


def rules(*, as_json: AsJson = False) -> None:
    """Every rule with its threshold, what it measures now, and how it stands. [alerts.NAME] in pilothouse.toml sets
    them.
    """
    settings = load_settings()
    found = run(lambda db: verbs.standings(db, settings.alert_rules, settings.calendar))
    if as_json:
        return output.print_json(found)
    made = output.table(
        "rule", "state", "severity", ("now", "right"), ("threshold", "right"), "for", ("subject", "fold"), "runbook"
    )
    for row in found:
        now = "" if row["value"] is None else _amount(row["value"], row["unit"])
        side = "≤" if row["fires_below"] else "≥"
        made.add_row(
            row["rule"],
            output.state(row["state"]),
            row["severity"],
            now,
            f"{side} {_amount(row['threshold'], row['unit'])}",
            output.seconds(row["for_seconds"]) if row["for_seconds"] else "at once",
            row["subject"] or "",
            row["runbook"],
        )
    return output.print_table(made, empty="no rules", spare=("runbook", "for", "severity"))


def accept(
    rule: Annotated[str, Parameter(help="cost-drift, latency-drift or tool-mix-drift.")],
    agent: Annotated[str, Parameter(help="The agent's name.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say that what an agent does now is usual from now on: its history for this rule is learned anew."""
    run(lambda db: verbs.accept(db, rule, agent, principal=principal()))
    if as_json:
        return output.print_json({"rule": rule, "agent": agent})
    return output.console().print(f"{rule} learns anew what is usual for {agent}", soft_wrap=True)


def silence(
    rule: Annotated[str, Parameter(help="The rule, or a pattern such as budget-*.")],
    *,
    subject: Pattern = "*",
    agent: Annotated[str, Parameter(help="A pattern of agents.")] = "*",
    minutes: Annotated[float, Parameter(help="For how long.", validator=validators.Number(gt=0))],
    reason: Annotated[str, Parameter(help="Why; it goes into the audit.")],
    as_json: AsJson = False,
) -> None:
    """Send no messages of some alerts for a while. They fire all the same, and are told if they still do at its end."""
    order = SilenceOrder(Matcher(rule, subject, agent), minutes, reason)
    row = verbs.public(run(lambda db: verbs.silence(db, order, principal=principal())))
    if as_json:
        return output.print_json(row)
    until = output.clock_time(row["until_at"])
    told = f"silence {row['id']} holds until {until}; `pilothouse alerts unsilence {row['id']}` ends it before"
    return output.console().print(told, soft_wrap=True)


def silences(*, as_json: AsJson = False) -> None:
    """The silences that hold now."""
    rows = [verbs.public(row) for row in run(verbs.list_silences)]
    if as_json:
        return output.print_json(rows)
    made = output.table(
        "silence", "rule", ("subject", "fold"), ("agent", "fold"), "until", ("by", "fold"), ("reason", "fold")
    )
    for row in rows:
        until = output.clock_time(row["until_at"])
        made.add_row(row["id"], row["rule"], row["subject"], row["agent"], until, row["created_by"], row["reason"])
    return output.print_table(made, empty="nothing is silenced", spare=("by", "agent"))


def unsilence(
    silence_id: Annotated[str, Parameter(help="The silence's id.")],
    *,
    as_json: AsJson = False,
) -> None:
    """End a silence before its time."""
    row = verbs.public(run(lambda db: verbs.unsilence(db, silence_id, principal=principal())))
    if as_json:
        return output.print_json(row)
    return output.console().print(f"silence {silence_id} has ended", soft_wrap=True)


def send_test(
    channel: Annotated[str, Parameter(help="Such as email:ops@example.com, or only email.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Send a test message to a channel of the settings, by a run as alerts are sent."""
    picked = pick_channel(load_settings().every_channel, channel)
    run_id = run(lambda db: alert_notices.send_test(db, picked, principal=principal()))
    if as_json:
        return output.print_json({"run_id": run_id})
    told = f"run {run_id} sends it; `pilothouse runs watch {run_id}` says how it went"
    return output.console().print(told, soft_wrap=True)
