"""`workers`: list and drain."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from pilothouse.cli import output
from pilothouse.cli.output import AsJson, Column, Limit
from pilothouse.cli.session import principal, run
from pilothouse.control import workers as verbs
from pilothouse.control.views import view


def list_workers(*, limit: Limit = 20, as_json: AsJson = False) -> None:
    """The workers, live ones first."""
    rows = [view(row) for row in run(lambda db: verbs.list_workers(db, limit=limit))]
    if as_json:
        return output.print_json(rows)
    numbers: tuple[Column, ...] = (("pid", "right"), ("holds", "right"), ("slots", "right"))
    made = output.table("worker", "state", ("host", "fold"), *numbers, "renewed", ("agents", "fold"))
    for row in rows:
        counts = (row["pid"], row["running"], sum(row["slots"].values()))
        place = (row["id"], output.state(row["state"]), row["host"])
        made.add_row(*place, *map(str, counts), output.clock_time(row["renewed_at"]), ", ".join(row["agents"]))
    return output.print_table(
        made, empty="no workers; start one with `pilothouse worker`", spare=("host", "pid", "renewed")
    )


def drain(worker_id: Annotated[str, Parameter(help="The worker's id.")], *, as_json: AsJson = False) -> None:
    """Let a worker finish what runs, claim nothing and exit."""
    row = view(run(lambda db: verbs.drain_worker(db, worker_id, principal=principal())))
    if as_json:
        output.print_json(row)
    else:
        output.console().print(f"worker {worker_id} is draining", soft_wrap=True)
