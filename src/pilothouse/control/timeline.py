"""Everything that happened to one run, and what it waits for now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pilothouse import payloads
from pilothouse.clock import isoformat
from pilothouse.control import approvals, blobs, calls, effects, instants, run_budgets, run_lists, runs, switchboard
from pilothouse.control.halts import HALTED
from pilothouse.control.views import CANCELLING, attempt_view, run_view, shown_state, view
from pilothouse.domain.budgets import Hit, command_for, tell_hit
from pilothouse.domain.runs import RunState
from pilothouse.domain.switches import Switch, Target, keeping_back
from pilothouse.store.database import Database, Row, Transaction

CHILDREN_SHOWN = 200
LOGS_SHOWN = 500
AUDIT_SHOWN = 1000


async def timeline(db: Database, run_id: str) -> dict[str, Any]:
    """The run with its attempts, steps, signals, logs, children and audit. Raises NotFound."""
    return await db.read(lambda tx: _timeline(tx, run_id))


def _timeline(tx: Transaction, run_id: str) -> dict[str, Any]:
    run = runs.run_in(tx, run_id)
    children = run_lists.children_in(tx, run_id, CHILDREN_SHOWN)
    steps = tx.fetch_all("checkpoints_of_run", run_id=run_id)
    model_calls, tool_calls = calls.calls_of_run(tx, run_id)
    return {
        "run": run_view(run),
        "attempts": [attempt_view(row) for row in tx.fetch_all("attempts_of_run", run_id=run_id)],
        "steps": [view(row) for row in blobs.unpack(tx, steps, "result")],
        "model_calls": [view(row) for row in model_calls],
        "tool_calls": [view(row) for row in tool_calls],
        "effects": [effects.public(row) for row in tx.fetch_all("effects_of_run", run_id=run_id)],
        "signals": [view(row) for row in tx.fetch_all("signals_of_run", run_id=run_id)],
        "approvals": [approvals.public(row) for row in tx.fetch_all("approvals_of_run", run_id=run_id)],
        "waits": tx.fetch_all("waits_of_run", run_id=run_id),
        "budget": run_budgets.summary(tx, run_id),
        "logs": [view(row) for row in tx.fetch_all("logs_of_run", run_id=run_id, after=0, limit=LOGS_SHOWN)],
        "children": [run_view(row) for row in children],
        "audit": [view(row) for row in tx.fetch_all("audit_of_entity", entity_id=run_id, after=0, limit=AUDIT_SHOWN)],
    }


async def logs(db: Database, run_id: str, *, after: int = 0, limit: int = LOGS_SHOWN) -> list[Row]:
    """What the run wrote with `ctx.log`, oldest first, from line number `after` on."""
    return await db.read(lambda tx: tx.fetch_all("logs_of_run", run_id=run_id, after=after, limit=limit))


async def why(db: Database, run_id: str) -> dict[str, Any]:
    """Why a run is where it is: `state`, the `reasons` as sentences, and what to do `next`. Raises NotFound."""
    return await db.read(lambda tx: _why(tx, run_id))


def _why(tx: Transaction, run_id: str) -> dict[str, Any]:
    run = runs.run_in(tx, run_id)
    state = shown_state(run)
    match state:
        case RunState.QUEUED:
            reasons, advice = _why_queued(tx, run)
        case RunState.WAITING:
            reasons, advice = _why_waiting(tx, run)
        case RunState.RUNNING | "cancelling":
            reasons, advice = _why_running(tx, run, state)
        case RunState.FAILED:
            reasons, advice = _why_failed(tx, run)
        case _:
            reasons, advice = [f"it {state} at {isoformat(run['finished_at'])}"], "nothing to do"
    return {"run": run_id, "state": state, "reasons": reasons, "next": advice}


def _why_queued(tx: Transaction, run: Row) -> tuple[list[str], str]:
    if run["available_at"] > instants.now(tx):
        cause = f"after attempt {run['attempt']}" if run["attempt"] else "as it was submitted"
        return [f"it is due at {isoformat(run['available_at'])}, {cause}"], "wait, or cancel it"
    return _why_due(tx, run)


def _why_due(tx: Transaction, run: Row) -> tuple[list[str], str]:
    """Why a run that may be claimed is not."""
    if held := _holding(tx, run):
        return _why_held(held)
    live = [row for row in tx.fetch_all("list_workers", limit=1000) if row["state"] == "running"]
    able = [row for row in live if row["lease_until"] >= row["now"] and f'"{run["agent"]}"' in row["agents"]]
    if not able:
        return [f"no live worker runs agent {run['agent']!r}"], "start one: `pilothouse worker`"
    if not any(row["is_enabled"] for row in able):
        reason = f"every live worker that runs agent {run['agent']!r} was started with ENGINE_ENABLED=false"
        return [reason], "start a worker without it, or with ENGINE_ENABLED=true"
    if not any(_can_continue(worker, run) for worker in able):
        return _why_unknown_version(run, able)
    if full := _full_limit(tx, run):
        return [full], "wait; if it lasts, raise the limit in its agent"
    busy = sum(row["running"] for row in able)
    return (
        [f"it is due in lane {run['lane']}; {len(able)} workers run its agent and hold {busy} attempts"],
        "wait; if it lasts, add workers or slots for its lane",
    )


def _holding(tx: Transaction, run: Row, waits: list[Row] | None = None) -> list[Switch]:
    """The switches that keep a run back, and of those that it waits for itself the ones that are tripped."""
    tripped = switchboard.tripped_in(tx)
    if not tripped:
        return []
    known = tx.fetch_many("agents_by_name", [{"name": run["agent"]}])
    target = Target(run["tenant"], run["agent"], run["lane"], known[0]["fingerprint"] if known else None)
    own = [tripped[row["name"]] for row in waits or () if row["kind"] == "switch" and row["name"] in tripped]
    return list({switch.scope: switch for switch in [*keeping_back(tripped, target), *own]}.values())


def _why_held(held: list[Switch]) -> tuple[list[str], str]:
    reasons = [f"it is held by {switch.told()}, at {isoformat(switch.tripped_at)}" for switch in held]
    commands = " and ".join(f"`pilothouse switch reset {switch.scope}`" for switch in held)
    return reasons, f"once it may go on: {commands}"


def _full_limit(tx: Transaction, run: Row) -> str | None:
    """The concurrency limit that keeps a run back."""
    names = [{"name": run["agent"]}]
    (agent,) = tx.fetch_many("agents_by_name", names)
    running = sum(row["running"] for row in tx.fetch_many("running_by_agent", names))
    if agent["max_running"] is not None and running >= agent["max_running"]:
        return f"{running} runs of agent {run['agent']!r} run already, and max_running is {agent['max_running']}"
    limit, key = agent["max_running_per_key"], run["concurrency_key"]
    if limit is None or key is None:
        return None
    by_key = {row["concurrency_key"]: row["running"] for row in tx.fetch_many("running_by_key", names)}
    if by_key.get(key, 0) < limit:
        return None
    return f"{by_key[key]} runs of its concurrency key {key!r} run already, and max_running_per_key is {limit}"


def _can_continue(worker: Row, run: Row) -> bool:
    oldest, newest = payloads.decode(worker["state_versions"]).get(run["agent"], (1, 1))
    return run["state_version"] is None or oldest <= run["state_version"] <= newest


def _why_unknown_version(run: Row, able: list[Row]) -> tuple[list[str], str]:
    known = sorted({tuple(payloads.decode(row["state_versions"]).get(run["agent"], (1, 1))) for row in able})
    spans = ", ".join(f"{oldest}" if oldest == newest else f"{oldest} to {newest}" for oldest, newest in known)
    reason = (
        f"no live worker can continue it: it is in state version {run['state_version']} of agent {run['agent']!r}, "
        f"the live workers can continue {spans}"
    )
    return [reason], "start a worker with the code it started with, or give the agent a migration from that version"


def _why_waiting(tx: Transaction, run: Row) -> tuple[list[str], str]:
    if run["available_at"] is not None and run["available_at"] <= instants.now(tx):
        return _why_due(tx, run)
    waits = tx.fetch_all("waits_of_run", run_id=run["id"])
    if waits and all(row["kind"] == "limit" for row in waits):
        return _why_over_limit(run, run_budgets.waited_for(tx, run))
    signals = [row["name"] for row in waits if row["kind"] == "signal"]
    children = [row["name"] for row in waits if row["kind"] == "child"]
    held = _holding(tx, run, waits)
    reasons = [f"it waits for signal {name!r}" + _halted(tx, run, name) for name in signals]
    if children:
        reasons.append(f"it waits for {len(children)} child runs, the first is {children[0]}")
    asked = [row["name"] for row in waits if row["kind"] == "approval"]
    if asked:
        return _why_asked(tx, run, asked, reasons)
    suspended = tx.fetch_one("last_suspension", run_id=run["id"])
    if suspended is not None and suspended["reason"] and not signals and not held:
        reasons.append(suspended["reason"])
    if run["available_at"] is not None:
        reasons.append(f"it wakes at {isoformat(run['available_at'])} at the latest")
    if signals:
        return reasons, effects.advice(tx, run["id"], signals[0]) or _how_to_send(tx, run, signals[0])
    if held:
        told, advice = _why_held(held)
        return [*told, *reasons], advice
    return reasons, "nothing to do: it wakes by itself"


def _why_asked(tx: Transaction, run: Row, asked: list[str], reasons: list[str]) -> tuple[list[str], str]:
    """It waits for people: for what, since when, until when, and how they decide."""
    rows = [row for row in tx.fetch_all("approvals_of_run", run_id=run["id"]) if row["id"] in asked]
    for row in rows:
        then = {"wait": "", "escalate": ", then it goes to senior reviewers", "expire": ", then it expires"}
        until = f" until {isoformat(row['deadline_at'])}{then[row['on_deadline']]}" if row["deadline_at"] else ""
        since = isoformat(row["requested_at"])
        reasons.append(f"it waits for approval {row['id']} of {row['title']!r} since {since}{until}")
    verbs = ("approve {id}", "reject {id} --reason …", "revise {id} --note …")
    told = ", ".join(f"`pilothouse approvals {verb.format(id=asked[0])}`" for verb in verbs)
    return reasons, f"decide it: {told}"


def _why_over_limit(run: Row, hits: Sequence[Hit]) -> tuple[list[str], str]:
    """The limits that it waits for, as they stand now, when they have room again, and the command that gives more."""
    reasons = [f"it waits for room: {tell_hit(hit)}" for hit in hits]
    frees_at = run["available_at"]
    if frees_at is None:
        reasons.append("it does not go on by itself: that limit is the run's own")
    else:
        reasons.append(f"it goes on by itself at {isoformat(frees_at)}, when the next period begins")
    return reasons, "; ".join(f"give more: `{command_for(hit)}`" for hit in hits)


def _halted(tx: Transaction, run: Row, signal: str) -> str:
    """Why a person is asked, where the engine itself has halted the run."""
    row = tx.fetch_one("checkpoint_by_key", run_id=run["id"], key=signal + HALTED)
    return "" if row is None else f": {payloads.decode(row['result'])['reason']}"


def _how_to_send(tx: Transaction, run: Row, signal: str) -> str:
    """Where the engine has halted the run, a person says whether it goes on."""
    command = f"pilothouse runs signal {run['id']} {signal}"
    if not _halted(tx, run, signal):
        return f"send it: `{command}`"
    stop = '{"stop": "why"}'
    return f"let it go on: `{command}`, or end it: `{command} '{stop}'`"


def _why_running(tx: Transaction, run: Row, state: str) -> tuple[list[str], str]:
    attempts = tx.fetch_all("attempts_of_run", run_id=run["id"])
    current = attempts[-1]
    reasons = [
        f"attempt {current['number']} runs on worker {current['worker_id']} since {isoformat(current['started_at'])}"
    ]
    if state == CANCELLING:
        reasons.append(
            f"its cancel was asked for at {isoformat(run['cancel_requested_at'])}; the worker has not proved it yet"
        )
    return reasons, "follow it: `pilothouse runs watch " + str(run["id"]) + "`"


def _why_failed(tx: Transaction, run: Row) -> tuple[list[str], str]:
    error = view(run)["error"] or {}
    reasons = [f"{error.get('type', 'an error')}: {error.get('message', '')}"]
    if error.get("step"):
        reasons.append(f"the failing step is {error['step']!r}")
    if run["dismissed_at"] is not None:
        return reasons, "nothing to do: it was dismissed"
    redrive = f"`pilothouse dead redrive {run['id']}`"
    open_effects = effects.unknown_of(tx, run["id"])
    if not open_effects:
        return reasons, f"fix the cause, then {redrive}"
    reasons += [f"nobody knows whether the call of tool {row['tool']!r} took place" for row in open_effects]
    return reasons, f"find out, then say so: `{effects.resolve_command(open_effects[0]['id'])}`; then {redrive}"
