"""Many runs chosen by a filter, for `runs cancel` and `runs redrive`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import CycloptsError, Parameter

from pilothouse.cli import output
from pilothouse.cli.effects import instant
from pilothouse.cli.session import run
from pilothouse.control import bulk as verbs
from pilothouse.control.bulk import Choice, Order
from pilothouse.control.run_lists import Filter
from pilothouse.domain.runs import RunState
from pilothouse.store.database import Database


@Parameter(name="*")
@dataclass(frozen=True)
class Chosen:
    """Which runs are meant, instead of one; at most 500 at once, the newest first."""

    state: Annotated[RunState | None, Parameter(help="Those in this state.")] = None
    agent: Annotated[str | None, Parameter(help="Those of this agent.")] = None
    lane: Annotated[str | None, Parameter(help="Those of this lane.")] = None
    tenant: Annotated[str | None, Parameter(help="Those of this tenant.")] = None
    version: Annotated[str | None, Parameter(help="Those of this version; the beginning of a fingerprint.")] = None
    text: Annotated[str | None, Parameter(help="Those with this text in their input or error.")] = None
    error_type: Annotated[str | None, Parameter(help="Those that failed with an exception of this type.")] = None
    since: Annotated[str | None, Parameter(help="Those submitted from this instant on, ISO 8601.")] = None
    until: Annotated[str | None, Parameter(help="Those submitted before this instant, ISO 8601.")] = None
    everything: Annotated[bool, Parameter(name="--all", negative="", help="All that it applies to.")] = False

    def expect(self, run_id: str | None) -> bool:
        """Whether a filter is meant; one run or a filter, and never everything by omission."""
        has_filter = self != Chosen()
        if (run_id is not None) == has_filter:
            raise CycloptsError(msg="name one run, or choose with --agent, --state or another filter, or --all.")
        return has_filter

    def choice(self) -> Choice:
        wanted = Filter(
            self.state,
            self.agent,
            self.lane,
            self.tenant,
            None,
            instant(self.since),
            instant(self.until),
            self.version,
            self.text,
        )
        return Choice(wanted, error_type=self.error_type)


def bulk(order: Order, chosen: Chosen, *, dry_run: bool, as_json: bool) -> None:
    """Does it to the runs of a filter, and says what became of each."""
    choice = chosen.choice()
    found = run(lambda db: _carry_out(db, order, choice, dry_run=dry_run))
    if as_json:
        return output.print_json(found)
    made = output.table("run", ("agent", "fold"), "was", ("now", "fold"))
    for line in found["runs"]:
        after = line["told"] if line["done"] or not line["told"] else f"refused: {line['told']}"
        made.add_row(line["id"], line["agent"], output.state(line["state"]), after)
    output.print_table(made, empty="no run fits")
    if found["has_more"]:
        output.console().print("there are more: repeat it", style="dim")
    if found["dry_run"]:
        output.console().print("nothing was changed: this was a dry run", style="dim")
    return None


async def _carry_out(db: Database, order: Order, choice: Choice, *, dry_run: bool) -> dict[str, Any]:
    found = await verbs.choose(db, order.verb, choice)
    done = None if dry_run else await verbs.carry_out(db, order, [row["id"] for row in found.rows])
    return verbs.bulk_view(found, done)
