"""Erasing a tenant: nothing of it is left, others lose nothing, the audit still verifies, and no cut does any harm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from pilothouse.clock import FrozenClock
from pilothouse.control import audit, blobs, checks, erasures, keys, retention, runs, seals, tenants
from pilothouse.domain.keys import KeyRole
from pilothouse.domain.seals import digest_of
from pilothouse.errors import Conflict, NotFound
from pilothouse.store import archive, tenancy
from pilothouse.store.database import Database, T, Transaction
from tests.control.steps import card, claim, ended, register, settle, start_worker, state_of, submit
from tests.control.tenancy import OTHER, OWN, SHARED, dump, live, mentions, prepare

TELLS_OF_ERASURES = {("erasures", "tenant"), ("audit", "entity_id")}
"""Where the name of an erased tenant may stand: that it was erased must be told."""


@pytest.fixture
async def db(database: Database, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    prepare(database)
    yield database
    if "corrupts" not in request.keywords:
        broken = [v for v in await checks.check(database, grace_us=60_000_000) if not v.holds]
        assert not broken


async def erase(db: Database, tenant: str = OWN, **options: Any) -> dict[str, Any]:
    begun = await erasures.begin(db, tenant, principal="cli:ops", **options)
    return await erasures.carry_on(db, begun["id"])


async def seal(db: Database) -> None:
    for _ in range(2):
        await seals.Sealer(db).seal()


def test_every_table_is_a_tenants_or_the_platforms(database: Database) -> None:
    """A table that is in neither list would be left out of exports and erasures: add it to one."""
    found = {table.name: table for table in database.examine(archive.tables)}

    assert set(found) == set(tenancy.WAYS) | tenancy.OF_THE_PLATFORM
    assert not set(tenancy.WAYS) & tenancy.OF_THE_PLATFORM
    with_owner = {name for name, table in found.items() if {"tenant", "run_id"} & set(table.columns)}
    assert with_owner <= set(tenancy.WAYS) | {"erasures"}
    covered = {*erasures.BY_RUN, *erasures.BY_TENANT, *erasures.RENAMED}
    assert covered == set(tenancy.WAYS), "control.erasures says how each leaves"


async def test_nothing_is_left_of_an_erased_tenant_and_others_lose_nothing(db: Database) -> None:
    ids = await live(db, OWN)
    await live(db, OTHER)
    await keys.create_key(db, f"of-{OWN}", KeyRole.VIEWER, tenant=OWN, expires_at=None, principal="cli:ada")
    filled = {table for table, _ in mentions(dump(db), OWN, *ids)}
    assert set(tenancy.WAYS) - filled == {"waits"}, "the test has something in every other table"
    others = of_others(db)
    await seal(db)

    done = await erase(db)

    assert (done["state"], done["runs"]) == ("done", 3)
    found = dump(db)
    assert mentions(found, OWN, *ids) <= TELLS_OF_ERASURES
    assert {row["action"] for row in found["audit"] if OWN in row["entity_id"]} == {
        "tenant.erasing",
        "tenant.records_erased",
        "tenant.erased",
    }
    assert "pseudonym_key" not in done
    assert [row["pseudonym_key"] for row in found["erasures"]] == [None]
    assert of_others(db) == others
    assert [row["tenant"] for row in await tenants.list_tenants(db)] == [OTHER]


def of_others(db: Database) -> dict[str, list[Any]]:
    return {
        table: [row for row in rows if OTHER in str(row)]
        for table, rows in dump(db).items()
        if table not in ("counters", "audit_seals", "balances")
    }


async def test_money_of_an_erased_tenant_still_adds_up_and_bears_no_name(db: Database) -> None:
    """The sums of the agent, of all, and of a user whom another tenant has too: `db check` compares them."""
    await live(db, OWN)
    await live(db, OTHER)
    before = {row["seq"]: row for row in dump(db)["ledger"]}

    await erase(db)

    found = dump(db)
    after = {row["seq"]: row for row in found["ledger"]}
    names = {"tenant", "run_id", "user_id", "reservation_id", "reason"}
    assert unnamed(after, names) == unnamed(before, names)
    renamed = [row for row in after.values() if row["tenant"] != OTHER]
    assert all(str(row[name]).startswith("erased-") for row in renamed for name in names - {"reason"})
    assert [len({row[name] for row in renamed}) for name in ("tenant", "run_id", "user_id", "reservation_id")] == [
        1,
        1,
        1,
        2,
    ]
    held = {row["id"]: row for row in found["reservations"] if row["tenant"] == renamed[0]["tenant"]}
    assert set(held) == {row["reservation_id"] for row in renamed}
    assert {row["key"] for row in held.values()} == {""}
    accounts = {row["account"] for row in found["balances"]}
    assert {"agent:echo", "global", f"tenant:{OTHER}"} <= accounts
    assert not {"user:ada", f"tenant:{OWN}"} & accounts, "made anew from the ledger when a limit next asks"


def unnamed(rows: dict[int, Any], names: set[str]) -> dict[int, dict[str, Any]]:
    return {seq: {name: row[name] for name in row if name not in names} for seq, row in rows.items()}


async def test_a_payload_that_another_tenant_still_uses_stays(db: Database) -> None:
    await live(db, OWN)
    (run_id,) = [each for each in await live(db, OTHER) if run_input(db, each) == SHARED]
    assert len(dump(db)["blobs"]) == 3

    await erase(db)

    assert len(dump(db)["blobs"]) == 2
    assert run_input(db, run_id) == SHARED


def run_input(db: Database, run_id: str) -> Any:
    from pilothouse import payloads

    return payloads.decode(db.read_blocking(lambda tx: runs.run_in(tx, run_id))["input"])


async def test_an_erasure_may_be_cut_off_anywhere_and_is_carried_on(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed leaves whole transactions behind; so does one whose next transaction never begins."""
    monkeypatch.setattr(erasures, "BATCH", 2)
    ids = await live(db, OWN)
    await live(db, OTHER)
    await seal(db)
    begun = await erasures.begin(db, OWN, principal="cli:ops")

    for allowed in range(100):
        try:
            erasure = await erasures.carry_on(cast(Database, Cut(db, allowed)), begun["id"])
            break
        except Killed:
            assert (await seals.verify(db)).holds

    assert allowed > 10
    assert (erasure["state"], erasure["runs"]) == ("done", 3)
    assert mentions(dump(db), OWN, *ids) <= TELLS_OF_ERASURES
    assert await erase(db) == erasure, "once more changes nothing"


class Killed(BaseException):
    pass


class Cut:
    """A database whose user is killed after so many transactions."""

    def __init__(self, db: Database, allowed: int) -> None:
        self._db, self._left = db, allowed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    async def transaction(self, work: Callable[[Transaction], T], *, is_patient: bool = False) -> T:
        if self._left == 0:
            raise Killed
        self._left -= 1
        return await self._db.transaction(work, is_patient=is_patient)


async def test_two_who_carry_on_at_once_count_nothing_twice(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasures, "BATCH", 1)
    await live(db, OWN)
    await live(db, OTHER)
    begun = await erasures.begin(db, OWN, principal="cli:ops")

    done = await asyncio.gather(*(erasures.carry_on(db, begun["id"]) for _ in range(3)))

    assert {each["state"] for each in done} == {"done"}
    assert done[0]["runs"] == 3


# --- what stands in the way --------------------------------------------------------------------


async def test_runs_under_way_are_in_the_way_unless_they_are_to_be_cancelled(db: Database) -> None:
    worker = start_worker(db)
    submit(db, tenant=OWN)
    (claimed,) = claim(db, worker)
    queued = submit(db, tenant=OWN)
    with pytest.raises(
        Conflict, match="2 runs of tenant 'acme' have not ended; wait for them, or cancel them: --cancel"
    ):
        await erasures.begin(db, OWN, principal="cli:ops")

    waiting = await erase(db, cancel=True)
    assert (waiting["state"], waiting["runs"]) == ("under_way", 0)
    assert state_of(db, queued) == "cancelled"
    assert (await tenants.show_tenant(db, OWN))["state"] == "erasing"
    settle(db, ended(claimed, "cancelled"))
    await erasures.carry_on_all(db)

    assert mentions(dump(db), OWN) <= TELLS_OF_ERASURES
    shown = await tenants.show_tenant(db, OWN)
    assert (shown["state"], shown["erasure"]["state"], shown["rows"]) == ("erased", "done", {})


async def test_who_is_not_there_cannot_be_erased(db: Database) -> None:
    with pytest.raises(NotFound, match="there is no tenant 'nobody'; `pilothouse tenants list` shows them"):
        await erasures.begin(db, "nobody", principal="cli:ops")


async def test_keys_are_shut_as_soon_as_it_begins(db: Database) -> None:
    submit(db, tenant=OWN)
    made = await keys.create_key(db, "a", KeyRole.OPERATOR, tenant=OWN, expires_at=None, principal="test")
    assert await keys.authenticate(db, made.text) is not None

    await erasures.begin(db, OWN, principal="cli:ops", cancel=True)

    assert await keys.authenticate(db, made.text) is None


async def test_a_tenant_of_the_same_name_may_come_later_and_is_another(db: Database) -> None:
    await live(db, OWN)
    first = await erase(db)
    run_id = submit(db, tenant=OWN)

    assert (await erasures.carry_on(db, first["id"]))["state"] == "done"
    assert state_of(db, run_id) == "queued", "an erasure that is done touches nothing any more"
    second = await erase(db, cancel=True)

    assert second["id"] != first["id"]
    assert mentions(dump(db), OWN, run_id) <= TELLS_OF_ERASURES


@pytest.mark.corrupts
@pytest.mark.parametrize("table", sorted(erasures.BY_TENANT))
async def test_a_row_that_was_left_is_found(db: Database, table: str) -> None:
    """By `db check`, for each table whose rows name their tenant; votes go with their approvals."""
    if table == "approval_votes":
        return
    await live(db, OTHER)
    await live(db, OWN)
    await erase(db)
    db.administer(lambda tx: tx.execute(f"UPDATE {table} SET tenant = '{OWN}'"))

    (verdict,) = [v for v in await checks.check(db, grace_us=10**12) if "erased tenant" in v.name]
    assert [row["id"] for row in verdict.found] == [OWN]


# --- the audit ---------------------------------------------------------------------------------


async def test_erased_records_keep_their_seals_whole_and_say_by_whom(db: Database) -> None:
    await live(db, OWN)
    await live(db, OTHER)
    await seal(db)
    anchor = (await seals.verify(db)).head
    sealed_records = len(await audit.tail(db, tenant=OWN, limit=500))

    done = await erase(db)

    before = await seals.verify(db, anchor=anchor)
    await seal(db)
    after = await seals.verify(db, anchor=anchor)
    for found in (before, after):
        assert found.findings == []
        assert [(each.tenant, each.by, each.records) for each in found.erased] == [(OWN, "cli:ops", done["records"])]
    assert done["records"] >= sealed_records
    assert after.unsealed == 0
    (shown, *_) = [row for row in await audit.tail(db, limit=500) if row["entity_id"] == "erased"]
    assert (shown["tenant"], shown["principal"], shown["reason"], shown["run_id"]) == ("", "erased", None, None)
    assert shown["action"].startswith(("run.", "key.", "schedule."))


async def test_what_is_erased_before_it_is_sealed_is_sealed_as_it_is_then(db: Database) -> None:
    await live(db, OWN)
    await erase(db)
    await seal(db)

    assert (await seals.verify(db)).findings == []


async def test_a_copy_of_the_audit_proves_the_erasure_by_itself(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasures, "BATCH", 5)
    await live(db, OWN)
    await seal(db)
    await live(db, OTHER)
    await seal(db)
    submit(db, tenant=OWN)
    await seal(db)
    await erase(db, cancel=True)
    await seal(db)

    for after_seal in (0, 1, 2):
        lines: list[str] = []
        await seals.export(db, lines.append, after_seal=after_seal)
        done = seals.verify_lines(lines)  # a part begins in the middle of the chain, which is told of its first seal
        assert [each for each in done.findings if each.seq is not None] == []
        assert [each.tenant for each in done.erased] == [OWN]
    lines = []
    await seals.export(db, lines.append)
    assert not any(OWN in line for line in lines if '"tenant.' not in line)
    without = [line for line in lines if "tenant.records_erased" not in line]
    assert {"changed", "removed"} == {each.problem for each in seals.verify_lines(without).findings}


@pytest.mark.corrupts
@pytest.mark.parametrize("is_forged", [False, True])
async def test_an_erasure_that_no_record_vouches_for_is_tampering(db: Database, is_forged: bool) -> None:
    """Not even with tombstones that fit: whoever makes them must say so in the audit, by name."""
    await live(db, OWN)
    await live(db, OTHER)
    await erase(db)
    await seal(db)
    text = forge(db) if is_forged else ""
    db.administer(
        lambda tx: tx.execute(
            "UPDATE audit SET tenant = '', principal = 'erased', entity_id = 'erased', reason = NULL, run_id = NULL "
            f"WHERE tenant = '{OTHER}'"
        )
    )

    found = (await seals.verify(db)).findings

    assert {each.problem for each in found} == {"changed"}
    assert len(digest_of(text)) == 64


def forge(db: Database) -> str:
    from pilothouse.domain.seals import tombstones_text

    records = [row for row in dump(db)["audit"] if row["tenant"] == OTHER]
    text = tombstones_text(records)
    db.administer(
        lambda tx: tx.execute(
            "INSERT INTO erased_records (id, erasure_id, first_seq, last_seq, tombstones) "
            "SELECT 'forged', id, 1, 1000, :text FROM erasures",
            text=text,
        )
    )
    return text


@pytest.mark.corrupts
@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("DELETE FROM audit WHERE entity_id = 'erased' AND action = 'run.succeeded'", "removed"),
        ("UPDATE audit SET action = 'run.failed' WHERE entity_id = 'erased' AND action = 'run.succeeded'", "changed"),
        (f"DELETE FROM audit WHERE tenant = '{OTHER}' AND action = 'run.succeeded'", "removed"),
        ("DELETE FROM erased_records", "changed"),
        ("UPDATE erased_records SET tombstones = replace(tombstones, 'a', 'b')", "changed"),
    ],
)
async def test_what_is_done_to_an_erased_or_another_record_is_found(db: Database, sql: str, problem: str) -> None:
    await live(db, OWN)
    await live(db, OTHER)
    await seal(db)
    await erase(db)
    await seal(db)
    assert (await seals.verify(db)).holds

    db.administer(lambda tx: tx.execute(sql))

    assert {each.problem for each in (await seals.verify(db)).findings} == {problem}


async def test_tombstones_leave_with_the_records_that_retention_takes(database_url: str) -> None:
    from pilothouse.store.database import open_database
    from pilothouse.store.migrations import migrate

    clock = FrozenClock(1_800_000_000_000_000)
    aged = open_database(database_url, clock=clock)
    aged.start()
    migrate(aged)
    try:
        register(aged, card("echo"))
        await live(aged, OWN)
        await seal(aged)
        await erase(aged)
        await seal(aged)
        clock.advance(seconds=40 * 86_400)
        submit(aged, tenant=OTHER)
        await seal(aged)

        await retention.Pruner(aged, None, 30 * 86_400_000_000).prune()

        assert dump(aged)["erased_records"] == []
        assert (await seals.verify(aged)).findings == []
    finally:
        aged.close()


def test_a_shared_payload_is_large() -> None:
    assert len(SHARED["text"]) >= blobs.LARGE
