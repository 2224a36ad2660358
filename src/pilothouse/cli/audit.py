"""`audit`: tail, show, verify and export."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.record_view import print_record
from pilothouse.cli.session import run
from pilothouse.control import audit as verbs
from pilothouse.control import seals
from pilothouse.control.views import view
from pilothouse.errors import ConfigError
from pilothouse.store.database import Database

FOLLOW_SECONDS = 0.3

Action = Annotated[str | None, Parameter(help="Only this action, such as run.failed.")]
Tenant = Annotated[str | None, Parameter(help="Only this tenant.")]


def tail(
    *,
    limit: Annotated[int, Parameter(name=["--limit", "-n"], help="How many.", validator=output.AT_LEAST_ONE)] = 20,
    action: Action = None,
    tenant: Tenant = None,
    entity: Annotated[str | None, Parameter(help="Only this run, worker or agent.")] = None,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="", help="Go on with what comes.")] = False,
    as_json: AsJson = False,
) -> None:
    """The latest records, oldest first."""

    async def work(db: Database) -> None:
        last = await verbs.last_seq(db)
        rows = await verbs.tail(db, limit=limit, action=action, tenant=tenant, entity_id=entity)
        for row in reversed(rows):
            print_record(view(row), as_json=as_json)
        if follow:
            after = max(last, rows[0]["seq"]) if rows else last
            await _follow(db, after, _Wanted(action, tenant, entity), as_json=as_json)

    run(work)


@dataclass(frozen=True, slots=True)
class _Wanted:
    action: str | None
    tenant: str | None
    entity: str | None = None


async def _follow(db: Database, after: int, wanted: _Wanted, *, as_json: bool) -> None:
    follower = verbs.Follower(db, after=after, action=wanted.action, tenant=wanted.tenant)
    while True:
        rows = await follower.next()
        for row in rows:
            if wanted.entity in (None, row["entity_id"]):
                print_record(view(row), as_json=as_json)
        if not rows:
            await asyncio.sleep(FOLLOW_SECONDS)


def show(seq: Annotated[int, Parameter(help="The record's number.")], *, as_json: AsJson = False) -> None:
    """One record."""
    row = view(run(lambda db: verbs.show(db, seq)))
    if as_json:
        output.print_json(row)
    else:
        output.console().print(output.facts(list(row.items())))


def verify(
    *,
    file: Annotated[Path | None, Parameter(help="An exported file, instead of the database.")] = None,
    anchor: Annotated[str | None, Parameter(help="The hash of a seal that you noted before; it must be there.")] = None,
    as_json: AsJson = False,
) -> int:
    """Hold the audit against its seals; names every record that was changed, removed or inserted, and exits with 1."""
    done = run(lambda db: seals.verify(db, anchor=anchor)) if file is None else _verify_file(file, anchor)
    if as_json:
        output.print_json(asdict(done) | {"holds": done.holds})
    else:
        _print_verification(done)
    return 0 if done.holds else 1


def _verify_file(path: Path, anchor: str | None) -> seals.Verification:
    try:
        with path.open(encoding="utf-8") as lines:
            return seals.verify_lines(lines, anchor=anchor)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _print_verification(done: seals.Verification) -> None:
    out = output.console()
    for finding in done.findings:
        what = finding.problem if finding.seq is None else f"record {finding.seq} was {finding.problem}"
        out.print(Text.assemble(("✗", "bold red"), f" seal {finding.seal}: {what}"), soft_wrap=True)
    if done.holds:
        out.print(
            Text.assemble(("✓", "green"), f" {done.records} records under {done.seals} seals are as they were written")
        )
    if done.pruned:
        out.print(f"  {done.pruned} older records have left the audit; their seals are in the chain", style="dim")
    for each in done.erased:
        told = f"{each.records} records of tenant {each.tenant} were erased by {each.by}, the last at {each.at}"
        out.print(f"  {told}; their digests are in the chain", style="dim", soft_wrap=True)
    if done.unsealed:
        out.print(f"  {done.unsealed} records are not sealed yet; the scheduler seals them", style="dim")
    if done.head:
        out.print(f"  the last seal is {done.head}", style="dim", soft_wrap=True)


def export(
    *,
    to: Annotated[Path | None, Parameter(help="A file; standard output unless given.")] = None,
    after_seal: Annotated[int, Parameter(help="Only what was sealed after this seal.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write the audit and its seals as JSON lines, which `audit verify --file` can prove elsewhere."""
    if to is None:
        run(lambda db: seals.export(db, print, after_seal=after_seal))
        return
    part = to.with_name(f"{to.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            lines = run(lambda db: seals.export(db, lambda line: file.write(f"{line}\n"), after_seal=after_seal))
        part.replace(to)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigError(f"{to} cannot be written: {error.strerror}") from error
    if as_json:
        output.print_json({"file": str(to), "lines": lines})
    else:
        output.console().print(f"{lines} lines in {to}", soft_wrap=True)
