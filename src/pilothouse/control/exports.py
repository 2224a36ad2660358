"""The export of a tenant: every row of it from every table, as JSON lines, from one snapshot.

The first line says what the file is. Then comes a line per row, with its table; large payloads are rows of `blobs`. The
last line has the number of rows of each table and the SHA-256 of all lines before: a file that was cut shows it.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

from pilothouse import __version__
from pilothouse.clock import isoformat
from pilothouse.control import tenants
from pilothouse.control.digested import ByteSink, DigestedLines
from pilothouse.errors import ConfigError
from pilothouse.store import migrations, tenancy
from pilothouse.store.database import Database, Transaction

FORMAT = 1
COMPRESSION = 6


@dataclass(frozen=True, slots=True)
class Export:
    """What an export holds: rows by table."""

    tenant: str
    rows: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.rows.values())


def export_tenant(db: Database, tenant: str, path: Path) -> Export:
    """Writes everything of a tenant into a file, compressed where its name ends in .gz, while others go on writing.

    Raises NotFound, and ConfigError for a path that cannot be written; then nothing is left there.
    """
    _expect_known(db, tenant)
    part = path.with_name(f"{path.name}.part")
    try:
        done = db.examine(lambda tx: _write_file(tx, tenant, part, db.clock.now_us(), is_packed=path.suffix == ".gz"))
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return done


def _expect_known(db: Database, tenant: str) -> None:
    if not db.read_blocking(lambda tx: tenants.known_in(tx, tenant)):
        raise tenants.unknown_tenant(tenant)


def _write_file(tx: Transaction, tenant: str, path: Path, now: int, *, is_packed: bool) -> Export:
    """From its beginning: where the connection is lost, this runs again on another snapshot."""
    with path.open("wb") as file:
        if not is_packed:
            return _write(tx, tenant, file, now)
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=COMPRESSION) as packed:
            return _write(tx, tenant, packed, now)


def _write(tx: Transaction, tenant: str, file: ByteSink, now: int) -> Export:
    lines = DigestedLines(file)
    rows: dict[str, int] = {}
    schema = migrations.version_in(tx)
    lines.write(
        {"export": FORMAT, "tenant": tenant, "created_at": isoformat(now), "schema": schema, "version": __version__}
    )
    for table, row in tenancy.rows_of(tx, tenant):
        lines.write({"table": table, "row": row})
        rows[table] = rows.get(table, 0) + 1
    lines.close(rows)
    return Export(tenant, rows)
