"""What readiness finds out by asking: the same on both stores, and what only one of them can have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pilothouse.clock import FrozenClock, SystemClock
from pilothouse.config import load_settings
from pilothouse.control import leases, limits
from pilothouse.control.readiness import readiness
from pilothouse.domain.limits import Limit, Period, Unit
from pilothouse.domain.readiness import Check, worst
from pilothouse.store.database import Database, open_database
from pilothouse.store.migrations import migrate
from tests.control.steps import card, register, start_worker

START_US = 1_800_000_000_000_000
SECOND_US = 1_000_000


class Ahead(SystemClock):
    """The clock of a machine that is seven and a half seconds ahead of the database's."""

    def now_us(self) -> int:
        return super().now_us() + 7_500_000


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(START_US)


@pytest.fixture
def db(database_url: str, clock: FrozenClock) -> Iterator[Database]:
    db = open_database(database_url, clock=clock)
    db.start()
    migrate(db)
    register(db, card("echo"))
    start_worker(db, lease_us=10**15)
    yield db
    db.close()


async def checks_of(db: Database, **settings: Any) -> dict[str, Check]:
    return await readiness(db, load_settings(database_url=db.url, **settings))


async def test_a_scheduler_is_late_once_its_lease_has_run_out(db: Database, clock: FrozenClock) -> None:
    before = await checks_of(db)
    assert await leases.hold(db, "seal", "one", lease_us=5 * SECOND_US)
    while_it_leads = await checks_of(db)
    clock.advance(seconds=71)
    late = await checks_of(db)

    assert (before["scheduler"].status, "no scheduler" in before["scheduler"].detail) == ("degraded", True)
    assert (while_it_leads["scheduler"].status, worst(while_it_leads)) == ("ready", "ready")
    assert (late["scheduler"].status, worst(late)) == ("degraded", "degraded")
    assert late["scheduler"].detail.endswith("seal has not for 71 s")


async def test_that_the_store_takes_writes_is_proved_by_one_at_most_once_a_second(
    db: Database, clock: FrozenClock
) -> None:
    def proved_at() -> int:
        found = db.read_blocking(lambda tx: tx.fetch_all("list_leases"))
        (row,) = [each for each in found if each["name"] == leases.PROOF]
        return int(row["held_at"])

    instants = []
    for _ in range(3):
        assert (await checks_of(db))["writes"].status == "ready"
        instants.append(proved_at())
        clock.advance(seconds=0.8)

    assert instants == [START_US, START_US, START_US + 1_600_000]
    assert "no scheduler" in (await checks_of(db))["scheduler"].detail, "the proof is no chore"


async def test_a_global_budget_that_is_used_up_degrades_and_one_of_a_tenant_does_not(db: Database) -> None:
    await limits.set_limit(db, Limit("tenant:acme", Period.DAY, Unit.ACTIONS, 0), principal="test")
    of_a_tenant = (await checks_of(db))["budgets"]
    await limits.set_limit(db, Limit("global", Period.MONTH, Unit.ACTIONS, 0), principal="test")
    of_all = (await checks_of(db))["budgets"]

    assert of_a_tenant.status == "ready"
    assert "acme" not in of_a_tenant.detail
    assert (of_all.status, "global actions" in of_all.detail) == ("degraded", True)


async def test_little_room_on_the_disk_degrades(db: Database) -> None:
    disk = (await checks_of(db, least_free_disk_mb=10**9))["disk"]

    if db.dialect == "sqlite":
        assert (disk.status, "free for the database" in disk.detail) == ("degraded", True)
    else:  # its disk is another machine's
        assert disk.status == "ready"


async def test_the_disk_of_each_log_file_is_looked_at(db: Database, tmp_path: Path) -> None:
    both = (await checks_of(db, log_destination=f"stderr, file:{tmp_path}/a.jsonl"))["disk"]
    away = (await checks_of(db, log_destination=f"file:{tmp_path}/away/a.jsonl,stdout"))["disk"]

    assert (both.status, "free for the logs" in both.detail) == ("ready", True)
    assert (away.status, "the disk of the logs cannot be looked at" in away.detail) == ("degraded", True)


async def test_a_clock_that_is_wrong_degrades(postgres_url: str) -> None:
    told = []
    for clock in (SystemClock(), Ahead()):
        db = open_database(postgres_url, clock=clock)
        db.start()
        migrate(db)
        told.append((await checks_of(db))["clock"])
        db.close()

    assert [check.status for check in told] == ["ready", "degraded"]
    assert "7.5 s ahead of the database's" in told[1].detail


async def test_a_database_that_may_only_be_read_is_not_ready(postgres_url: str) -> None:
    db = open_database(postgres_url)
    db.start()
    migrate(db)
    name = urlsplit(postgres_url).path.removeprefix("/")
    db.administer(lambda tx: tx.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    db.close()

    standby = open_database(postgres_url)
    standby.start()
    checks = await checks_of(standby)
    standby.close()

    assert (checks["database"].status, checks["writes"].status) == ("ready", "not_ready")
    assert "read-only" in checks["writes"].detail
