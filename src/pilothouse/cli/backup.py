"""`backup` and `restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pilothouse.cli import output
from pilothouse.cli.db import print_verdicts
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import open_session
from pilothouse.clock import SystemClock, to_datetime
from pilothouse.config import load_settings, mask
from pilothouse.control import backup as verbs
from pilothouse.control import checks
from pilothouse.store.database import open_database


def backup(
    *,
    to: Annotated[Path | None, Parameter(help="The file; named after the moment unless given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Copy the whole database into one file, while everything goes on."""
    path = to or Path(f"pilothouse-{to_datetime(SystemClock().now_us()):%Y%m%d-%H%M%S}.backup.gz")
    with open_session(load_settings()) as db:
        contents = verbs.backup(db, path)
    size = path.stat().st_size
    if as_json:
        return output.print_json({"file": str(path), "bytes": size, "rows": contents.rows, "schema": contents.schema})
    return output.console().print(
        f"{contents.total:,} rows of {len(contents.rows)} tables in {path} ({size / 1024:,.0f} KiB)",
        soft_wrap=True,
    )


def restore(
    file: Annotated[Path, Parameter(help="A file that `backup` wrote.")],
    *,
    to: Annotated[str | None, Parameter(help="The URL of an empty database; the settings' own unless given.")] = None,
    as_json: AsJson = False,
) -> int:
    """Write a backup into an empty database of either store, and prove what has arrived."""
    settings = load_settings(database_url=to)
    db = open_database(settings.database_url, pool_size=2, direct_url=None if to else settings.direct_url)
    try:
        verbs.inspect(file)
        db.start()
        contents = verbs.restore(file, db)
        verdicts = db.read_blocking(lambda tx: checks.verdicts(tx, grace_us=checks.ANY_GRACE_US))
    finally:
        db.close()
    is_whole = all(verdict.holds for verdict in verdicts)
    if as_json:
        output.print_json({"rows": contents.rows, "schema": contents.schema, "holds": is_whole})
    else:
        output.console().print(
            f"{contents.total:,} rows of {contents.created_at} are in {mask(settings.database_url)}", soft_wrap=True
        )
        print_verdicts(verdicts)
    return 0 if is_whole else 1
