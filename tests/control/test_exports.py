"""The export of a tenant: all that is its own, nothing of others, each large payload once, whole or visibly cut."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pilothouse.control import exports, keys
from pilothouse.domain.keys import KeyRole
from pilothouse.errors import ConfigError, NotFound
from pilothouse.store import tenancy
from pilothouse.store.database import Database
from tests.control.steps import request, submit_all
from tests.control.tenancy import OTHER, OWN, SHARED, dump, live, mentions, prepare


@pytest.fixture
def db(database: Database) -> Database:
    prepare(database)
    return database


def read(path: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize("name", ["acme.jsonl", "acme.jsonl.gz"])
async def test_an_export_holds_every_row_of_the_tenant_and_none_of_another(
    db: Database, tmp_path: Path, name: str
) -> None:
    ids = await live(db, OWN)
    await live(db, OTHER)
    made = await keys.create_key(db, "shop", KeyRole.VIEWER, tenant=OWN, expires_at=None, principal="test")

    done = exports.export_tenant(db, OWN, tmp_path / name)

    first, *lines, last = read(tmp_path / name)
    assert (first["export"], first["tenant"]) == (1, OWN)
    assert last["rows"] == done.rows == dict(Counter(line["table"] for line in lines))
    assert not any(OTHER in json.dumps(line) for line in lines)
    assert done.rows == own_rows(db, ids)
    payloads = [json.loads(line["row"]["payload"]) for line in lines if line["table"] == "blobs"]
    assert len(payloads) == 2, "the large ones: its own, and the one that another tenant has too"
    assert SHARED in payloads
    assert made.text.split("_", 2)[2] not in str(lines)
    assert not any("secret_hash" in line["row"] for line in lines)


def own_rows(db: Database, ids: list[str]) -> dict[str, int]:
    """Counted another way: by what each row says."""
    found = dump(db)
    own = {table: sum(1 for row in rows if mentions({table: [row]}, OWN, *ids)) for table, rows in found.items()}
    own["blobs"] = 2
    return {table: count for table, count in own.items() if count and table in tenancy.WAYS}


async def test_many_pages_hold_each_row_once(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenancy, "RUNS_AT_ONCE", 2)
    await live(db, OWN)
    submit_all(db, *(request(input=SHARED, tenant=tenant) for _ in range(5) for tenant in (OWN, OTHER)))

    exports.export_tenant(db, OWN, tmp_path / "all.jsonl")

    lines = read(tmp_path / "all.jsonl")[1:-1]
    assert len({json.dumps(line) for line in lines}) == len(lines)
    counts = Counter(line["table"] for line in lines)
    assert (counts["runs"], counts["blobs"], counts["blob_references"]) == (8, 2, 7)
    assert dict(counts) == db.examine(lambda tx: tenancy.count_rows(tx, OWN))


async def test_a_file_that_was_cut_shows_it(db: Database, tmp_path: Path) -> None:
    await live(db, OWN)
    exports.export_tenant(db, OWN, tmp_path / "all.jsonl")

    *lines, last = (tmp_path / "all.jsonl").read_bytes().splitlines(keepends=True)

    assert json.loads(last)["digest"] == hashlib.sha256(b"".join(lines)).hexdigest()


def test_who_is_not_there_and_where_nothing_can_be_written_is_told(db: Database, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no tenant 'nobody'"):
        exports.export_tenant(db, "nobody", tmp_path / "all.jsonl")
    submit_all(db, request(tenant=OWN))
    with pytest.raises(ConfigError, match="cannot be written"):
        exports.export_tenant(db, OWN, tmp_path / "absent" / "all.jsonl")
    assert list(tmp_path.glob("*.jsonl*")) == []
