"""What the database knows is put into a bundle, on both stores, and what cannot be had says why."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pilothouse.clock import SystemClock
from pilothouse.config import load_settings
from pilothouse.control import bundles
from pilothouse.control.bundles import PARTS, Bundle, Part
from pilothouse.domain.hiding import Hiding
from pilothouse.errors import ConfigError, StoreError
from pilothouse.store.database import Database
from tests.control.steps import claim, ended, settle, submit


def collected(db: Database, *, quick: bool = False) -> tuple[Bundle, dict[str, Any]]:
    """A bundle of a database, and its files as JSON."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz") as archive:
        bundle = Bundle(Hiding(()), "b", SystemClock(), archive)
        asyncio.run(bundles.add_parts(bundle, db, load_settings(), quick=quick))
    body.seek(0)
    with tarfile.open(fileobj=body) as archive:
        files = {each.name: archive.extractfile(each) for each in archive}
        return bundle, {name: json.load(file) for name, file in files.items() if file}


def test_every_part_of_it_is_told(db: Database, worker: str) -> None:
    submit(db)
    settle(db, *(ended(run, "fatal") for run in claim(db, worker)))

    bundle, files = collected(db)

    assert [each.problem for each in bundle.entries if each.problem] == []
    assert files.keys() == {f"b/{part.name}" for part in PARTS}
    (letter,) = files["b/dead.json"]
    assert letter["agent"] == "echo"
    assert files["b/workers.json"][0]["id"] == worker
    assert all(check["holds"] for check in files["b/checks.json"])
    assert db.dialect == "sqlite" or isinstance(files["b/statements.json"]["under_way"], list)


def test_in_a_hurry_what_is_slow_is_left_out(db: Database) -> None:
    _, files = collected(db, quick=True)

    assert files.keys() == {f"b/{part.name}" for part in PARTS if not part.is_slow}


async def _fails(db: Database, settings: object) -> None:
    raise StoreError("no such thing; postgresql://ann:hunter2@db/x")


async def _hangs(db: Database, settings: object) -> None:
    await asyncio.Event().wait()


def test_what_fails_or_hangs_is_told_and_the_rest_goes_on(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = (_fails, _hangs, _fails, _hangs, _hangs, _fails)
    monkeypatch.setattr(bundles, "PARTS", [Part(f"{n}.json", "x", way) for n, way in enumerate(ways)])
    monkeypatch.setattr(bundles, "PART_SECONDS", 0.01)

    bundle, files = collected(database)

    problems = [each.problem or "" for each in bundle.entries]
    assert files == {}
    assert [each.name for each in bundle.entries] == [*(f"{n}.json" for n in range(5)), "database"]
    assert "no such thing; postgresql://ann:***@db/x" in problems[0]
    assert "no answer" in problems[1]
    assert "nothing more was asked" in problems[5]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_archive_that_is_not_whole_is_not_left(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "x.tar.gz"

    def write() -> None:
        with bundles.writing(path, Hiding(()), SystemClock()) as bundle:
            bundle.add_json("a.json", "a", {"a": 1})
            assert [each.name for each in tmp_path.iterdir()] == ["x.tar.gz.part"]
            raise error

    with pytest.raises((KeyboardInterrupt, ConfigError)):
        write()

    assert list(tmp_path.iterdir()) == []
