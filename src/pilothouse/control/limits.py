"""Limits: those that the settings give, and those that operators set; whoever waits for room under one is woken."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from pilothouse.control import audit, ledger, runs, waits
from pilothouse.control.glances import Glance
from pilothouse.domain.limits import (
    EACH,
    RUN_AT,
    Limit,
    Unit,
    account_prefix,
    check_limit,
    parse_scope,
    run_scopes,
    show_amount,
)
from pilothouse.errors import FieldError, InvalidInput
from pilothouse.store.database import Database, Row, Transaction


def adopt(tx: Transaction, limits: Sequence[Limit], *, principal: str) -> None:
    """Makes the limits of the settings those of the database; what an operator has set stands."""
    _adopt(tx, limits, lambda scope: not scope.startswith(RUN_AT), principal)


def adopt_of_agents(tx: Transaction, agents: Collection[str], limits: Sequence[Limit], *, principal: str) -> None:
    """Makes the limits that an App declares for runs of its agents those of the database, which may hold more Apps'."""
    own = {RUN_AT + agent for agent in agents}
    _adopt(tx, limits, lambda scope: scope in own, principal)


def _adopt(tx: Transaction, limits: Sequence[Limit], is_ours: Callable[[str], bool], principal: str) -> None:
    tx.send("lock_limits_alone")
    wanted = {(limit.scope, limit.period, limit.unit): limit for limit in limits}
    rows = [row for row in tx.fetch_all("limits_from_settings") if is_ours(row["scope"])]
    known = {(row["scope"], row["period"], row["unit"]): row["amount"] for row in rows}
    changed = [
        limit
        for key, limit in wanted.items()
        if known.get(key, -1) != limit.amount and _stored(tx, limit, "operator") is None
    ]
    dropped = known.keys() - wanted.keys()
    for limit in changed:
        _write(tx, limit, "settings", principal)
    if dropped:
        _drop(tx, dropped, "settings")
    _release(tx, {limit.scope for limit in changed} | {scope for scope, _, _ in dropped})


def _stored(tx: Transaction, limit: Limit, source: str) -> Row | None:
    row = tx.fetch_one("limit_by_key", scope=limit.scope, period=limit.period, unit=limit.unit)
    return row if row is not None and row["source"] == source else None


async def set_limit(db: Database, limit: Limit, *, principal: str, reason: str = "") -> Row | None:
    """Sets a limit from now on, also below what is spent already; the one before. An amount of None lifts it.

    Raises InvalidInput that names what does not fit.
    """
    _expect_sense(limit)

    def work(tx: Transaction) -> Row | None:
        kind, _, name = limit.scope.partition(":")
        if kind == "run" and name not in ("", EACH) and tx.fetch_one("owner_of_run", name=name) is None:
            raise runs.unknown_run(name)
        return set_in(tx, limit, principal=principal, reason=reason)

    before = await db.transaction(work)
    db.notify(runs.WAKE_RUNS)
    return before


async def raise_limit(db: Database, limit: Limit, *, principal: str, reason: str = "") -> None:
    """Sets a limit, unless it was set higher, or lifted, meanwhile. Raises InvalidInput."""
    _expect_sense(limit)

    def work(tx: Transaction) -> None:
        tx.send("lock_limits_alone")
        now = tx.fetch_one("limit_by_key", scope=limit.scope, period=limit.period, unit=limit.unit)
        if now is None or (now["amount"] is not None and now["amount"] < (limit.amount or 0)):
            set_in(tx, limit, principal=principal, reason=reason)

    await db.transaction(work)
    db.notify(runs.WAKE_RUNS)


def _expect_sense(limit: Limit) -> None:
    try:
        parse_scope(limit.scope)
        check_limit(limit)
    except ValueError as error:
        raise InvalidInput(str(error), [FieldError("scope", str(error))]) from error


def set_in(tx: Transaction, limit: Limit, *, principal: str, reason: str = "") -> Row | None:
    """`set_limit` within a transaction, of a limit that fits."""
    tx.send("lock_limits_alone")
    before = _write(tx, limit, "operator", principal)
    _release(tx, {limit.scope})
    _record(tx, limit, before, principal, reason)
    return before


def put_back_in(tx: Transaction, limit: Limit, before: Row | None, *, principal: str, reason: str) -> None:
    """Takes back what `principal` has set with `set_in`, unless somebody has set another limit since."""
    tx.send("lock_limits_alone")
    current = tx.fetch_one("limit_by_key", scope=limit.scope, period=limit.period, unit=limit.unit)
    if current is None or current["set_by"] != principal:
        return
    after = limit._replace(amount=before["amount"] if before else None)
    if before is None:
        _drop(tx, [(limit.scope, limit.period, limit.unit)], "operator")
    else:
        _write(tx, after, before["source"], before["set_by"])
    _release(tx, {limit.scope})
    _record(tx, after, current, principal, reason)


def _drop(tx: Transaction, keys: Iterable[tuple[str, str, str]], source: str) -> None:
    """Takes limits away; the epoch still rises, so that whoever waits on one learns of it."""
    epoch = tx.fetch_one("limits_epoch")
    assert epoch is not None
    for scope, period, unit in keys:
        tx.execute("delete_limit", scope=scope, period=period, unit=unit, source=source)
    tx.execute("raise_limits_epoch", epoch=epoch["epoch"] + 1)


def _write(tx: Transaction, limit: Limit, source: str, principal: str) -> Row | None:
    """Returns the limit before. One that begins to count finds open what has been spent under it."""
    before = tx.fetch_one("limit_by_key", scope=limit.scope, period=limit.period, unit=limit.unit)
    if before is None or before["amount"] is None:
        ledger.open_under(tx, limit)
    tx.execute("set_limit", **limit._asdict(), source=source, set_by=principal)
    return before


def _release(tx: Transaction, scopes: Iterable[str]) -> None:
    """Whoever waits for room in an account of these scopes looks again. Runs are locked before their waits, as by those
    who claim them.
    """
    prefixes = sorted(map(account_prefix, scopes))
    waits.lock_runs(tx, [row["run_id"] for each in prefixes for row in tx.fetch_all("limit_waits", prefix=each)])
    waits.wake(tx, [row for each in prefixes for row in tx.fetch_all("release_limit_waits", prefix=each)])


def _record(tx: Transaction, limit: Limit, before: Row | None, principal: str, reason: str) -> None:
    was = "none" if before is None else _shown(before["amount"], limit.unit)
    entry = audit.entry(
        "limit.set",
        "limit",
        f"{limit.scope}/{limit.period}/{limit.unit}",
        principal=principal,
        tenant=_owner(tx, limit.scope),
        before=was,
        after=_shown(limit.amount, limit.unit),
        reason=reason or None,
    )
    audit.record(tx, [entry])


def _owner(tx: Transaction, scope: str) -> str:
    """The tenant that a limit speaks of."""
    kind, _, name = scope.partition(":")
    if kind == "run":
        run = tx.fetch_one("owner_of_run", name=name)
        return audit.PLATFORM if run is None else str(run["tenant"])
    return name if kind == "tenant" and name != "*" else audit.PLATFORM


def _shown(amount: int | None, unit: Unit) -> str:
    return "lifted" if amount is None else show_amount(amount, unit)


def caps_reached(
    row: Row, waiting: Sequence[waits.Wait], reason: str | None, *, principal: str
) -> list[audit.AuditRow]:
    """What the audit says of accounts whose actions of a day are used up, so that the run of a row waits."""
    names = (wait.name.rpartition("@")[0] for wait in waiting if wait.kind == "limit")
    facts: audit.Facts = {"tenant": row["tenant"], "reason": reason, "run_id": row["id"], "attempt": row["attempt"]}
    return [
        audit.entry("action_cap.reached", "limit", name, principal=principal, **facts)
        for name in names
        if name.endswith(f"/{Unit.ACTIONS}")
    ]


class RunLimits:
    """The limits on what a single run may do, as one process sees them: how many calls of tools, how long it works."""

    def __init__(self, db: Database) -> None:
        self._glance = Glance(db, "run_limits")
        self._seen: Mapping[tuple[str, str], int | None] = {}
        self._epoch = 0

    async def look(self, *, anew: bool = False) -> None:
        """A few times a second at most, or `anew`."""
        if anew:
            self._glance.forget()
        rows = await self._glance.look()
        if rows is not None:
            self._seen = {(row["scope"], row["unit"]): row["amount"] for row in rows}
            self._epoch = max((row["epoch"] for row in rows), default=0)

    def of(self, run_id: str, agent: str, unit: Unit) -> tuple[int | None, int]:
        """The closest limit, None where there is none, and the latest change that was seen."""
        for scope in run_scopes(run_id, agent):
            if (scope, unit) in self._seen:
                return self._seen[scope, unit], self._epoch
        return None, self._epoch
