"""`schedules`: list, show, pause, resume, fire."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import principal, run
from pilothouse.control import schedules as verbs
from pilothouse.control.views import view

Name = Annotated[str, Parameter(help="The schedule's name.")]


def list_schedules(
    *,
    tenant: Annotated[str | None, Parameter(help="Only this tenant's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every schedule, when it fires next and what its last fire came to."""
    rows = [view(verbs.public(row)) for row in run(lambda db: verbs.list_schedules(db, tenant=tenant))]
    if as_json:
        return output.print_json(rows)
    made = output.table("schedule", "state", "agent", ("cron", "fold"), "zone", "next", "last run", ("error", "fold"))
    for row in rows:
        following = output.clock_time(row["next_fires"][0]) if row["next_fires"] else ""
        last = output.state(row["last_run_state"]) if row["last_run_state"] else ""
        error = output.shorten(row["last_error"] or "", 60)
        made.add_row(row["name"], row["state"], row["agent"], row["cron"], row["timezone"], following, last, error)
    return output.print_table(
        made, empty="no schedules; declare one with app.schedule(...) and start a worker", spare=("zone", "error")
    )


def show(name: Name, *, as_json: AsJson = False) -> None:
    """One schedule: its policies, its next fires, its last run."""
    row = view(verbs.public(run(lambda db: verbs.show_schedule(db, name))))
    if as_json:
        return output.print_json(row)
    catch_up = f"{row['catch_up']}, at most {row['catch_up_limit']}" if row["catch_up"] == "all" else row["catch_up"]
    last = f"{row['last_run_id']} ({row['last_run_state'] or 'pruned'})" if row["last_run_id"] else None
    pairs: list[tuple[str, Any]] = [
        ("state", row["state"]),
        ("agent", row["agent"]),
        ("cron", f"{row['cron']} in {row['timezone']}"),
        ("catch up", catch_up),
        ("overlap", row["overlap"]),
        ("input", row["input"]),
        ("last fire", output.clock_time(row["last_fire_at"])),
        ("last run", last),
        ("last error", row["last_error"]),
        ("next fires", "\n".join(str(output.clock_time(instant)) for instant in row["next_fires"])),
    ]
    output.console().print(output.facts(pairs))
    return None


def pause(name: Name, *, as_json: AsJson = False) -> None:
    """Let a schedule fire no more until it is resumed."""
    _tell(run(lambda db: verbs.pause_schedule(db, name, principal=principal())), as_json, "is paused")


def resume(name: Name, *, as_json: AsJson = False) -> None:
    """Let a paused schedule fire again, from its next instant on."""
    _tell(run(lambda db: verbs.resume_schedule(db, name, principal=principal())), as_json, "is active again")


def fire(name: Name, *, as_json: AsJson = False) -> None:
    """Fire a schedule now, whatever its next instant."""
    submitted = run(lambda db: verbs.fire_schedule(db, name, principal=principal()))
    if as_json:
        output.print_json({"id": submitted.id, "state": submitted.state})
    else:
        output.console().print(f"schedule {name} fired: run {submitted.id}", soft_wrap=True)


def _tell(row: dict[str, Any], as_json: bool, what: str) -> None:
    if as_json:
        output.print_json(view(verbs.public(row)))
    else:
        output.console().print(f"schedule {row['name']} {what}", soft_wrap=True)
