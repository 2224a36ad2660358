"""What a profile reads for a page of runs is found by indexes, however many runs lie behind it."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from pilothouse.store.database import Database
from tests.plans.test_hot_statements import explain

SOURCE = files("pilothouse.store").joinpath("sql", "waterfall.sql").read_text("utf-8")
NAMES = re.findall(r"^-- name: (\w+)", SOURCE, re.MULTILINE)
PAGES = ("runs_of_period", "agent_runs_of_period")
TABLES = {*re.findall(r"FROM ([a-z_]+)\b", SOURCE)}
SCANNED = re.compile(r"(?:SCAN|Seq Scan on) (?P<table>\w+)")
SORTED = re.compile(r"TEMP B-TREE|\bSort\b")


def test_the_statements_are_those_of_the_file() -> None:
    assert set(PAGES) < set(NAMES)
    assert {"runs", "attempts", "checkpoints", "model_calls", "tool_calls", "effects", "approvals", "audit"} < TABLES


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_profile_walks_over_a_table(database: Database, name: str) -> None:
    plan = explain(database, name, without_scans=True)

    scanned = [found["table"] for line in plan if (found := SCANNED.search(line))]
    assert not TABLES.intersection(scanned), "\n".join(plan)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_runs_is_the_end_of_an_index(database: Database, name: str) -> None:
    plan = explain(database, name, without_scans=True)

    assert not [line for line in plan if SORTED.search(line)], "\n".join(plan)
    assert any(re.search(r"id<\?|id < ", line) for line in plan), "\n".join(plan)


def test_the_runs_of_an_agent_with_few_are_found_among_many(database: Database) -> None:
    plan = explain(database, "agent_runs_of_period", without_scans=True)

    assert any("runs_of_agent" in line for line in plan) or database.dialect == "postgres", "\n".join(plan)
