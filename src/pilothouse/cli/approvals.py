"""`approvals`: list, show, approve, reject, revise, delegate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from pilothouse import payloads
from pilothouse.cli import output
from pilothouse.cli.output import AsJson, Limit
from pilothouse.cli.session import principal, run
from pilothouse.clock import SystemClock, from_datetime
from pilothouse.config import load_settings
from pilothouse.control import approvals as verbs
from pilothouse.control.approvals import Filter, Handover, Said
from pilothouse.domain.approvals import ApprovalState, Choice, Decider
from pilothouse.domain.policies import TIER_NAMES
from pilothouse.errors import FieldError, InvalidInput

ApprovalId = Annotated[str, Parameter(help="The approval's id.")]
Note = Annotated[str, Parameter(help="What you say to it; the agent and the audit get it.")]
State = Literal["pending", "approved", "rejected", "expired", "returned", "withdrawn", "all"]


def list_approvals(
    *,
    state: Annotated[State, Parameter(help="Only those in this state.")] = "pending",
    agent: Annotated[str | None, Parameter(help="Only what this agent asks.")] = None,
    action: Annotated[str | None, Parameter(help="Only this tool or approval.")] = None,
    tenant: Annotated[str | None, Parameter(help="Only this tenant's.")] = None,
    run_id: Annotated[str | None, Parameter(name="--run", help="Only what this run asks.")] = None,
    after: Annotated[str | None, Parameter(help="The last id of the page before.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """What waits for a person, the newest first."""
    wanted = Filter(None if state == "all" else state, agent, action, tenant, run_id)
    found = run(lambda db: verbs.list_approvals(db, wanted, after=after, limit=limit))
    rows = [verbs.public(row) for row in found]
    if as_json:
        return output.print_json(rows)
    made = output.table("approval", "state", ("agent", "fold"), ("what", "fold"), "risk", "age", "deadline", "for")
    for row in rows:
        made.add_row(
            row["id"],
            output.state(row["state"]),
            row["agent"],
            output.shorten(row["title"], 80),
            str(row["risk"]),
            _age(row["requested_at"]),
            _left(row),
            row["assigned_to"] or _wanted(row),
        )
    return output.print_table(made, empty="nothing waits for a person", spare=("for", "agent", "risk"))


def show(approval_id: ApprovalId, *, as_json: AsJson = False) -> None:
    """One approval with everything that there is to decide on, and what was decided in like cases."""
    row = run(lambda db: verbs.show_approval(db, approval_id))
    if as_json:
        return output.print_json(row)
    return _show(output.console(), row)


def approve(
    approval_id: ApprovalId,
    *,
    arguments: Annotated[
        str | None, Parameter(help="The arguments to go on with instead: JSON, or @FILE.", allow_leading_hyphen=True)
    ] = None,
    note: Note = "",
    as_json: AsJson = False,
) -> None:
    """Say yes; the run goes on, with the arguments as they are or as you give them."""
    edited = None if arguments is None else _read(arguments)
    _decide(approval_id, Said("approve", note, edited), as_json)


def reject(
    approval_id: ApprovalId,
    *,
    reason: Annotated[str, Parameter(name=["--reason", "--note"], help="Why; the agent is told.")],
    as_json: AsJson = False,
) -> None:
    """Say no, and why; the agent is told."""
    _decide(approval_id, Said("reject", reason), as_json)


def revise(
    approval_id: ApprovalId,
    *,
    note: Annotated[str, Parameter(name=["--note", "--reason"], help="What to change; the agent is told.")],
    as_json: AsJson = False,
) -> None:
    """Send it back to the agent, which may ask again with what was changed."""
    _decide(approval_id, Said("revise", note), as_json)


def delegate(
    approval_id: ApprovalId,
    to: Annotated[str, Parameter(help="Who decides instead: key:NAME, cli:USER, or a channel such as email:ADDRESS.")],
    *,
    note: Note = "",
    as_json: AsJson = False,
) -> None:
    """Let somebody else decide, and tell people so; senior reviewers may still."""
    handover = Handover(to, note, load_settings().channels)
    row = run(lambda db: verbs.delegate(db, approval_id, handover, Decider(principal())))
    if as_json:
        output.print_json(row)
    else:
        output.console().print(f"approval {approval_id} was given to {to}", soft_wrap=True)


def _decide(approval_id: str, said: Said, as_json: bool) -> None:
    row = run(lambda db: verbs.decide(db, approval_id, said, Decider(principal())))
    if as_json:
        output.print_json(row)
    else:
        output.console().print(_told(row, said.choice), soft_wrap=True)


def _told(row: dict[str, Any], choice: Choice) -> str:
    if row["state"] == ApprovalState.PENDING:
        return f"your yes to approval {row['id']} counts; it needs {row['quorum']} different people"
    went = {
        "approve": "is approved, and its run goes on",
        "reject": "is rejected; its agent is told why",
        "revise": "went back to its agent for revision",
    }[choice]
    return f"approval {row['id']} {went} (run {row['run_id']})"


def _read(text: str) -> dict[str, Any]:
    """The arguments of the command line. Raises InvalidInput."""
    try:
        value = payloads.decode(Path(text[1:]).read_bytes() if text.startswith("@") else text)
    except OSError as error:
        told = f"--arguments: {text[1:]} cannot be read: {error.strerror}"
        raise InvalidInput(told, [FieldError("arguments", told)]) from error
    except ValueError as error:
        told = f"--arguments is not JSON: {error}"
        raise InvalidInput(told, [FieldError("arguments", told)]) from error
    if not isinstance(value, dict):
        told = '--arguments is a JSON object of all arguments, such as {"order": 7, "amount_usd": 50}'
        raise InvalidInput(told, [FieldError("arguments", told)])
    return value


# --- how it looks ------------------------------------------------------------------------------


def _show(out: Console, row: dict[str, Any]) -> None:
    head = Text.assemble(("approval ", "dim"), (row["id"], "bold"), "  ", output.state(row["state"]))
    out.print(head, soft_wrap=True)
    out.print(Text(row["title"], style="bold"), soft_wrap=True)
    out.print(Padding(output.facts(_facts(row)), (1, 0, 1, 2), expand=False))
    for heading in ("recommendation", "reasoning", "risk_assessment"):
        if row[heading]:
            _section(out, heading.replace("_", " "), Text(row[heading]))
    if row["alternatives"]:
        _section(out, "alternatives", Text("\n".join(f"- {each}" for each in row["alternatives"])))
    _section(out, "why it is asked", Text("\n".join(_reason(each) for each in row["reasons"]) or "the agent asks"))
    _section(out, f"arguments  {row['arguments_hash']}", _json(row["arguments"]))
    if row["decided_arguments"] is not None:
        _section(out, f"edited arguments  {row['decided_hash']}", _json(row["decided_arguments"]))
    if row["votes"]:
        _section(out, "votes", _votes(row["votes"]))
    if row["similar"]:
        _section(out, "decided before", _similar(row["similar"]))
    if row["state"] == ApprovalState.PENDING:
        out.print(Text.assemble(("decide  ", "bold"), f"pilothouse approvals approve {row['id']}"), soft_wrap=True)
        for verb, option in (("reject", "--reason"), ("revise", "--note")):
            out.print(f"        pilothouse approvals {verb} {row['id']} {option} …", soft_wrap=True)


def _facts(row: dict[str, Any]) -> list[tuple[str, object]]:
    cost = f"{row['cost_usd']:,.2f} USD" + ("" if row["billing"] == "none" else f", {row['billing']}")
    decided = None if row["decided_by"] is None else f"{row['decided_by']} at {output.clock_time(row['decided_at'])}"
    return [
        ("agent", row["agent"]),
        (row["kind"] if row["kind"] == "tool" else "action", row["action"]),
        ("run", f"{row['run_id']}, step {row['key']}" + (f", round {row['round']}" if row["round"] > 1 else "")),
        ("tenant", row["tenant"] if row["tenant"] != "default" else None),
        ("asked for by", row["requested_by"]),
        ("risk", f"tier {row['risk']}, {TIER_NAMES[row['risk']]}"),
        ("confidence", None if row["confidence"] is None else f"{row['confidence']:.2f}"),
        ("cost", cost if row["cost_usd"] or row["billing"] != "none" else None),
        ("people", f"{row['people_affected']:,}" if row["people_affected"] else None),
        ("reversible", "yes" if row["is_reversible"] else "no"),
        ("needs", _wanted(row)),
        ("given to", row["assigned_to"]),
        ("asked at", f"{output.clock_time(row['requested_at'])} ({_age(row['requested_at'])} ago)"),
        ("deadline", _deadline(row)),
        ("policies", row["policy_version"]),
        ("decided by", decided),
        ("note", row["note"]),
    ]


def _section(out: Console, heading: str, body: Any) -> None:
    out.print(Text(heading, style="bold"))
    out.print(Padding(body, (0, 0, 1, 2), expand=False))


def _json(value: Any) -> Any:
    return Syntax(output.pretty(value), "json", background_color="default", word_wrap=True)


def _reason(reason: dict[str, str]) -> str:
    return f"{reason['decision']}  {reason['text']}  ({reason['rule']})"


def _votes(votes: list[dict[str, Any]]) -> Any:
    made = output.table("who", "said", "at", ("note", "fold"))
    for vote in votes:
        made.add_row(vote["principal"], vote["decision"], output.clock_time(vote["at"]), vote["note"] or "")
    return made


def _similar(rows: list[dict[str, Any]]) -> Any:
    made = output.table("approval", "state", "by", "at", ("arguments", "fold"), ("note", "fold"))
    for row in rows:
        shown = output.shorten(row["arguments"], 60) + (" (edited)" if row["is_edited"] else "")
        at = output.clock_time(row["decided_at"])
        made.add_row(row["id"], output.state(row["state"]), row["decided_by"] or "", at, shown, row["note"] or "")
    return made


def _wanted(row: dict[str, Any]) -> str:
    who = "a senior reviewer" if row["reviewer"] == "admin" else "a reviewer"
    return who if row["quorum"] == 1 else f"{row['quorum']} people"


def _age(instant: str) -> str:
    return output.seconds(max(0.0, _seconds_until(instant) * -1))


def _left(row: dict[str, Any]) -> str:
    if row["deadline_at"] is None or row["state"] != ApprovalState.PENDING:
        return ""
    left = _seconds_until(row["deadline_at"])
    return f"in {output.seconds(left)}" if left > 0 else "passed"


def _deadline(row: dict[str, Any]) -> str | None:
    if row["deadline_at"] is None:
        return None
    then = {"wait": "waits on", "escalate": "goes to senior reviewers", "expire": "expires"}[row["on_deadline"]]
    return f"{output.clock_time(row['deadline_at'])}, then it {then}"


def _seconds_until(instant: str) -> float:
    moment = output.instant(instant)
    assert moment is not None
    return (from_datetime(moment) - SystemClock().now_us()) / 1_000_000
