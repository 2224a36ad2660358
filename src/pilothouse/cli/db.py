"""`db`: migrate, status, check."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.text import Text

from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import open_session, run
from pilothouse.config import load_settings
from pilothouse.control import checks
from pilothouse.control.views import view
from pilothouse.store import migrations
from pilothouse.store.database import open_database
from pilothouse.store.storage import measure


def migrate_schema(
    *,
    phase: Annotated[
        Literal["pre", "post"] | None, Parameter(help="Only what comes before, or after, the deployment.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring the schema up to date; creates the database's tables where there are none."""
    settings = load_settings()
    db = open_database(settings.database_url, pool_size=2, direct_url=settings.direct_url)
    try:
        db.start()
        applied = [each.name for each in migrations.migrate(db, phase)]
    finally:
        db.close()
    if as_json:
        output.print_json({"applied": applied})
    else:
        output.console().print(f"applied {', '.join(applied)}" if applied else "the schema is up to date already")


def status(*, as_json: AsJson = False) -> None:
    """Which migrations are applied."""
    with open_session(load_settings()) as db:
        rows = migrations.status(db)
    names = ("version", "name", "phase", "applied_at")
    shown = [view({name: getattr(row, name) for name in names}) for row in rows]
    if as_json:
        return output.print_json(shown)
    made = output.table(("version", "right"), "name", "phase", "applied")
    for row in rows:
        made.add_row(str(row.version), row.name, row.phase, "yes" if row.applied_at else "no")
    return output.print_table(made, empty="this Pilothouse has no migrations")


def check(*, as_json: AsJson = False) -> int:
    """Prove the invariants of the run log; exits with 1 if one is broken."""
    grace_us = load_settings().lease_us
    verdicts = run(lambda db: checks.check(db, grace_us=grace_us))
    if as_json:
        output.print_json(
            [{"name": v.name, "holds": v.holds, "checked": v.checked, "found": v.found} for v in verdicts]
        )
    else:
        print_verdicts(verdicts)
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def storage(*, as_json: AsJson = False) -> None:
    """What takes the room: each table with its indexes, the largest first."""
    settings = load_settings()
    with open_session(settings) as db:
        found = measure(db)
    if as_json:
        return output.print_json(asdict(found) | {"total_bytes": found.total_bytes})
    made = output.table("table", ("rows", "right"), ("room", "right"), ("share", "right"))
    for each in found.tables:
        share = each.bytes / found.total_bytes if found.total_bytes else 0.0
        made.add_row(each.table, f"{each.rows:,}", output.size(each.bytes), f"{share:.0%}")
    made.add_row("free, for what comes next", "", output.size(found.free_bytes), "")
    output.print_table(made, empty="no tables")
    kept = f"{settings.retention_days:g} days" if settings.retention_days else "for ever"
    return output.console().print(
        f"\nended runs are kept {kept} (PILOTHOUSE_RETENTION_DAYS), dead letters until they are dealt with", style="dim"
    )


def print_verdicts(verdicts: list[checks.Verdict]) -> None:
    out = output.console()
    for verdict in verdicts:
        mark = ("✓", "green") if verdict.holds else ("✗", "bold red")
        checked = f"({verdict.checked:,} {verdict.looked_at} checked)"
        out.print(Text.assemble(mark, f" {verdict.name} ", (checked, "dim")))
        for broken in verdict.found:
            out.print(Text.assemble("    ", (str(broken["id"]), "red"), f": {broken['found']}"), soft_wrap=True)
    broken_count = sum(1 for verdict in verdicts if not verdict.holds)
    if broken_count:
        out.print(
            Text.assemble((f"\n{broken_count} invariants are broken", "bold red"), "; keep a copy of the database")
        )
    else:
        out.print(f"\nall {len(verdicts)} invariants hold")
